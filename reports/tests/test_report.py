"""The report shows every run, is whole in one file, is bounded, and says what it left out."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.verdict import Failure, Verdict, append_record
from reports import page as page_module
from reports.__main__ import main
from reports.model import SECTIONS_MAX, Records
from reports.page import OPEN_MAX, render, write_report
from reports.rare_states import rare_states
from reports.session import Outcome, Session
from reports.tests.runs_made_up import record, write_evidence

VOID = {"meta", "br", "input"}


class Checker(HTMLParser):
    """Notes ids, links, what is fetched from outside, and tags that are not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.links, self.outside, self.open_runs = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.note(tag, found)
        if tag == "details" and "open" in found and "run" in found.get("class", "").split():
            self.open_runs.append(found["id"])

    def handle_startendtag(self, tag, attributes):
        self.note(tag, dict(attributes))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def note(self, tag, found):
        if "id" in found:
            self.ids.append(found["id"])
        if found.get("href", "").startswith("#"):
            self.links.append(found["href"][1:])
        elif "href" in found:
            self.outside.append(found["href"])
        self.outside += [found[name] for name in ("src", "data", "action") if name in found]


def draw(tmp_path, records, session=None):
    for one in {one.artifacts: one for one in records}.values():
        write_evidence(tmp_path / "runs", one)
    write_report(Records(records), tmp_path / "runs", tmp_path / "index.html", session)
    return (tmp_path / "index.html").read_text()


@pytest.fixture
def page(tmp_path):
    return draw(tmp_path, [record(), record(1, Verdict.FAILED), record(world="real")])


def test_page_is_well_formed_and_self_contained(page):
    checker = Checker(page)

    assert checker.open == []
    assert checker.outside == []
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert checker.links
    assert set(checker.links) <= set(checker.ids)


def test_page_shows_verdict_replay_line_log_and_effects(page):
    assert "python -m harness run scenarios/test_a.py::test_a --world sim" in page
    assert "CheckFailed: key &lt;1&gt; is gone" in page
    assert "&lt;strange&gt; line 2" in page
    assert "network.bytes_cut=12" in page
    assert page.count('class="picture lsn"') == 3
    assert page.count('class="spacetime"') == 3


def test_each_cell_has_seeds_times_and_replay_lines(page):
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    cells = table.split("<td>")[2:]

    assert "1 of 2 green · seeds 0–1" in cells[0]
    assert "4.00 s virtual · 1.00 s wall" in cells[0]
    assert "--world sim --compute walgen --seed 1<" in cells[0]
    assert "seed 0" in cells[1]
    assert "2.00 s active · 0.50 s wall" in cells[1]
    assert "--world real --compute walgen --seed 0<" in cells[1]


def test_figures_are_shown_of_each_run_and_the_largest_of_each_cell(tmp_path):
    runs = [replace(record(seed), figures={"stall_s": 0.04 + seed / 100}) for seed in range(3)]

    page = draw(tmp_path, runs)

    assert page.count("stall_s ≤ 0.06") == 1
    assert page.count("<code>stall_s=0.04</code>") == 1


def test_only_what_is_not_green_is_open(page):
    assert Checker(page).open_runs == ["test-a-py-test-a-sim-walgen-1"]


def test_seeds_that_ended_out_of_order_are_replayed_in_order(tmp_path):
    page = draw(tmp_path, [record(seed, Verdict.FAILED) for seed in (3, 1, 2)])
    table = page[page.index("<tbody>") : page.index("</tbody>")]

    assert re.findall(r"--seed (\d)<", table) == ["1", "2", "3"]
    assert 'href="#test-a-py-test-a-sim-walgen-1"' in table


def test_all_green_has_nothing_open_and_no_list_of_failures(tmp_path):
    page = draw(tmp_path, [record(seed) for seed in range(3)])

    assert Checker(page).open_runs == []
    assert "Not green, in the order they ended" not in page


def test_failures_are_listed_in_the_order_they_ended(tmp_path):
    page = draw(tmp_path, [record(9, Verdict.ERROR), record(2), record(4, Verdict.INCONCLUSIVE)])
    listed = page[page.index("Not green, in the order") : page.index("<h2>Scenarios")]

    assert re.findall(r"seed (\d)</span>", listed) == ["9", "4"]


def test_a_thousand_records_of_many_scenarios_are_bounded_and_said_so(tmp_path):
    names = [f"scenarios/test_many.py::test_{index:03}" for index in range(500)]
    records = [
        record(seed, Verdict.FAILED if index % 50 == 0 else Verdict.PASSED, nodeid=name)
        for index, name in enumerate(names)
        for seed in range(2)
    ]
    page = draw(tmp_path, records)
    checker = Checker(page)

    assert page.count('<details class="run') == SECTIONS_MAX
    assert f"{SECTIONS_MAX} of 1000 runs" in page
    assert page.count('<tr class="') == 500
    assert len(checker.open_runs) == OPEN_MAX
    assert set(checker.links) <= set(checker.ids)
    assert len(page) < 6_000_000
    failed = [one.nodeid for one in records if one.verdict is Verdict.FAILED]
    assert all(
        f'id="{name[10:]}'.replace(".py::test_", "-py-test-").replace("_", "-") in page
        for name in failed
    )


def test_a_thousand_seeds_of_one_scenario_get_four_sections(tmp_path):
    records = [
        record(seed, Verdict.FAILED if seed > 900 else Verdict.PASSED) for seed in range(1000)
    ]
    page = draw(tmp_path, records)

    assert page.count('<details class="run') == 4
    assert "901 of 1000 green · seeds 0–999" in page
    assert "and 94 more seeds that are not green" in page
    assert len(page) < 400_000


def test_sections_stop_at_the_budget_and_red_ones_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "SECTION_BYTES_MAX", 30_000)
    names = [f"scenarios/test_many.py::test_{index}" for index in range(20)]
    records = [record(0, nodeid=name) for name in names[:-1]]
    page = draw(tmp_path, [*records, record(0, Verdict.FAILED, nodeid=names[-1])])

    assert 1 <= page.count('<details class="run') < 10
    assert '<details class="run failed" id="test-many-py-test-19-sim-walgen-0" open>' in page


def test_same_record_twice_has_two_ids(tmp_path):
    checker = Checker(draw(tmp_path, [record(3, Verdict.FAILED), record(3, Verdict.FAILED)]))

    assert "test-a-py-test-a-sim-walgen-3" in checker.ids
    assert "test-a-py-test-a-sim-walgen-3-2" in checker.ids


def test_page_without_any_evidence_says_so(tmp_path):
    page = render(Records([record()]), tmp_path)

    assert "There is no evidence in <code>run-sim-0</code>" in page
    assert "<figure" not in page


def test_failed_tests_that_left_no_record_are_on_the_page(tmp_path):
    outcomes = [
        Outcome("scenarios/ports/test_disk.py::test_fsync[real]", "failed", "lost <x>"),
        Outcome("scenarios/test_a.py::test_a[sim-walgen-seed1]", "failed", "is recorded"),
        Outcome("scenarios/test_a.py::test_a[sim-walgen-seed2]", "failed", "worker crashed"),
        Outcome("scenarios/test_a.py::test_a[sim-walgen]", "passed"),
    ]
    session = Session({"commit": "abc123"}, outcomes, 1)
    page = draw(tmp_path, [record(), record(1, Verdict.FAILED)], session)
    listed = page[page.index("Failed without a verdict") : page.index("<h2>Scenarios")]

    assert "lost &lt;x&gt;" in listed
    assert "python -m pytest &#39;scenarios/ports/test_disk.py::test_fsync[real]&#39;" in listed
    assert "worker crashed" in listed
    assert "is recorded" not in listed
    assert "abc123" in page
    assert "did not end by itself" not in page


def test_interrupted_session_and_unreadable_records_are_said(tmp_path):
    page = render(Records([record()], unreadable=2), tmp_path, Session())

    assert "did not end by itself" in page
    assert "2 line(s) of records.jsonl cannot be read" in page


def test_a_page_that_cannot_be_written_leaves_the_old_one_and_no_rest(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("old")
    monkeypatch.setattr(page_module, "render", lambda *_: "\udc80 has no encoding")

    with pytest.raises(UnicodeEncodeError):
        write_report(Records([record()]), tmp_path, tmp_path / "index.html")

    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "old"


def test_command_line_without_records_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["reports", "--runs", str(tmp_path)])

    assert main() == 2
    assert "run 'make demo' first" in capsys.readouterr().err


def test_command_line_draws_the_page_again_past_a_broken_record(tmp_path, capsys, monkeypatch):
    append_record(tmp_path / "records.jsonl", record())
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"artifacts": "cut sho\n')
    output = tmp_path / "page.html"
    monkeypatch.setattr("sys.argv", ["reports", "--runs", str(tmp_path), "--output", str(output)])

    assert main() == 0
    assert capsys.readouterr().out.strip() == str(output.resolve())
    assert "test_a" in output.read_text()
    assert "1 line(s) of records.jsonl" in output.read_text()


def test_command_line_names_a_place_it_cannot_write(tmp_path, capsys, monkeypatch):
    append_record(tmp_path / "records.jsonl", record())
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "page.html"
    monkeypatch.setattr("sys.argv", ["reports", "--runs", str(tmp_path), "--output", str(output)])

    assert main() == 2
    assert capsys.readouterr().err.startswith(f"seawall: cannot write {output}: ")


def test_rare_states_are_shown_by_world_and_those_never_reached_first(tmp_path):
    runs = [record(seed) for seed in range(3)] + [record(world="real")]
    marked = [replace(runs[0], marks={"wal_cut": 3, "gone_since": 1})]
    marked += [replace(runs[1], marks={"wal_cut": 2}), *runs[2:]]
    page = draw(tmp_path, marked)
    states = {state.name: state for state in rare_states(marked)}

    assert Checker(page).open == []
    assert states["wal_cut"].times == {"real": 0, "sim": 5}
    assert states["wal_cut"].runs == {"real": 0, "sim": 2}
    assert not states["deposed"].reached
    table = page.partition('id="rare-states"')[2].partition("</table>")[0]
    assert table.count("<tr>") == len(states) + 1
    assert "5 times in 2 runs" in table
    assert table.index("deposed") < table.index("wal_cut")
    assert "gone_since" not in table
    assert f"1 of {len(states)} declared states were reached" in page


def test_a_page_of_runs_without_marks_says_nothing_of_rare_states(page):
    assert "Rare states" not in page


def test_the_kind_of_a_failure_is_named(tmp_path):
    red = replace(record(1, Verdict.FAILED), failure=Failure("liveness", "NotLive: x", "y.py z"))
    assert '<b class="failed">failed (liveness)</b>' in draw(tmp_path, [record(), red])
