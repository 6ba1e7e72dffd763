"""The report shows every run, is whole in one file, and says what it left out."""

import json
from html.parser import HTMLParser

import pytest

from harness.verdict import RunRecord, RunSettings, Verdict, append_record
from reports.__main__ import main
from reports.lsn_picture import POINTS_MAX, lsn_picture
from reports.model import TraceEvent, load_run, matrix
from reports.page import write_report
from reports.spacetime import MESSAGES_MAX, spacetime

VOID = {"meta", "br"}


class Checker(HTMLParser):
    """Notes ids, links, outside references and tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.outside = [], [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if found.get("href", "").startswith("#"):
            self.links.append(found["href"][1:])
        self.outside += [found[name] for name in ("src",) if name in found]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def record(seed=0, verdict=Verdict.PASSED, world="sim", nodeid="scenarios/test_a.py::test_a"):
    return RunRecord(
        nodeid=nodeid,
        settings=RunSettings(world, "walgen", seed),
        verdict=verdict,
        message="" if verdict is Verdict.PASSED else "CheckFailed: key <1> is gone",
        digest="d1" if world == "sim" else "",
        events=10,
        commits=4,
        virtual_s=2.0,
        wall_s=0.5,
        artifacts=f"run-{world}-{seed}",
    )


def events(messages=3):
    lsn = {"tenant": "t", "timeline": "l", "name": "flush_lsn"}
    yield TraceEvent(0.0, "sk0", "process", {"state": "started"})
    for index in range(messages):
        fields = {"src": "main", "dst": "sk0", "bytes": 100, "sent_us": index * 1000}
        yield TraceEvent(index / 1000 + 0.0005, "main", "message", fields)
        yield TraceEvent(index / 1000 + 0.0006, "sk0", "lsn", {**lsn, "value": 1000 + index})
    yield TraceEvent(messages / 1000, "sk0", "process", {"state": "killed"})


def write_artifacts(directory, one):
    target = directory / one.artifacts
    target.mkdir(parents=True)
    rows = [f"    0.1  sk0        WARNING  <strange> line {n}" for n in range(3)]
    (target / "log.txt").write_text("\n".join(rows))
    with (target / "events.jsonl").open("w") as file:
        for event in events():
            row = {"at_s": event.at_s, "node": event.node, "kind": event.kind}
            file.write(json.dumps({**row, "fields": event.fields}) + "\n")
    (target / "effects.json").write_text('{"network.bytes_cut": 12}')


@pytest.fixture
def page(tmp_path):
    records = [record(), record(1, Verdict.FAILED), record(world="real")]
    for one in records:
        write_artifacts(tmp_path / "runs", one)
    write_report(records, tmp_path / "runs", tmp_path / "index.html")
    return (tmp_path / "index.html").read_text()


def test_page_is_well_formed_and_self_contained(page):
    checker = Checker()
    checker.feed(page)

    assert checker.open == []
    assert checker.outside == []
    assert "http://" not in page and "https://" not in page
    assert len(set(checker.ids)) == len(checker.ids)
    assert set(checker.links) <= set(checker.ids)


def test_page_shows_verdict_replay_line_log_and_effects(page):
    assert "python -m harness run scenarios/test_a.py::test_a --world sim" in page
    assert "CheckFailed: key &lt;1&gt; is gone" in page
    assert "&lt;strange&gt; line 2" in page
    assert "network.bytes_cut=12" in page
    assert page.count("<svg") == 6


def test_worst_verdict_of_a_cell_wins():
    grid = matrix([record(0), record(1, Verdict.FAILED), record(2), record(0, world="real")])

    cell = grid.rows[0][1]["sim · walgen"]
    assert cell.verdict is Verdict.FAILED
    assert cell.shown.settings.seed == 1
    assert cell.seeds == "3 seeds"
    assert grid.columns == ["sim · walgen", "real · walgen"]


def test_missing_artifacts_are_empty_not_an_error(tmp_path):
    run = load_run(record(), tmp_path)

    assert run.log == []
    assert run.events == []
    assert lsn_picture(run.events) == ""
    assert spacetime(run.events) is None


def test_spacetime_draws_a_window_around_the_first_fault_and_says_so():
    many = list(events(messages=4 * MESSAGES_MAX))

    diagram = spacetime(many)

    assert diagram.caption.startswith(f"{MESSAGES_MAX} of {4 * MESSAGES_MAX} messages")
    assert diagram.svg.count("<line") >= MESSAGES_MAX
    assert "✖" in diagram.svg


def test_lsn_picture_thins_long_series_but_keeps_the_ends():
    picture = lsn_picture(list(events(messages=10 * POINTS_MAX)))

    assert picture.count("H") < 2 * POINTS_MAX
    assert "sk0 flush_lsn" in picture


def test_command_line_without_records_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["reports", "--runs", str(tmp_path)])

    assert main() == 2
    assert "run 'make demo' first" in capsys.readouterr().err


def test_command_line_draws_the_page_again(tmp_path, capsys, monkeypatch):
    append_record(tmp_path / "records.jsonl", record())
    output = tmp_path / "page.html"
    monkeypatch.setattr("sys.argv", ["reports", "--runs", str(tmp_path), "--output", str(output)])

    assert main() == 0
    assert capsys.readouterr().out.strip() == str(output.resolve())
    assert "test_a" in output.read_text()
