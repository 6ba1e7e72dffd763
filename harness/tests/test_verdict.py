"""Verdicts, records and replay lines."""

import pytest

from harness.errors import CheckFailed, HarnessError, NodeDied, NotLive, ScenarioFailed
from harness.runner import Inconclusive, verdict_of
from harness.verdict import (
    EXIT_CODES,
    RunRecord,
    RunSettings,
    Verdict,
    append_record,
    check_file,
    check_writable,
)

RECORD = RunRecord(
    nodeid="scenarios/test_x.py::test_x[with load]",
    settings=RunSettings("sim", "walgen", 7, "pct"),
    verdict=Verdict.FAILED,
    message="CheckFailed: lost",
    digest="abc",
    events=12,
    commits=3,
    virtual_s=1.5,
    wall_s=0.25,
)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, Verdict.PASSED),
        (CheckFailed("lost", checker="ledger"), Verdict.FAILED),
        (NotLive("stuck", checker="eventually"), Verdict.FAILED),
        (NodeDied("node 'ps0' ended before it was ready"), Verdict.FAILED),
        (AssertionError("1 == 2"), Verdict.FAILED),
        (ConnectionResetError("node is gone"), Verdict.FAILED),
        (HarnessError("no such node"), Verdict.ERROR),
        (Inconclusive("nothing committed"), Verdict.INCONCLUSIVE),
        (ScenarioFailed.of([{"exception": CheckFailed("lost", checker="x")}]), Verdict.FAILED),
        (ScenarioFailed.of([{"exception": Inconclusive("nothing")}]), Verdict.INCONCLUSIVE),
        (ScenarioFailed.of([{"message": "spoilt"}]), Verdict.ERROR),
    ],
)
def test_verdict_tells_whose_fault_it_was(error, verdict):
    assert verdict_of(error) is verdict


def test_only_passed_is_green():
    assert [verdict for verdict in Verdict if EXIT_CODES[verdict] == 0] == [Verdict.PASSED]
    assert len(set(EXIT_CODES.values())) == len(Verdict)


def test_replay_line_names_everything_that_identifies_the_run():
    assert RECORD.replay == (
        "python -m harness run 'scenarios/test_x.py::test_x[with load]' "
        "--world sim --compute walgen --seed 7 --policy pct"
    )


def test_a_directory_is_made_and_one_that_cannot_be_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")

    check_writable(tmp_path / "deep" / "er", "--records")
    assert (tmp_path / "deep" / "er").is_dir()
    with pytest.raises(HarnessError, match=rf"^--records {file}/below: nothing can be written"):
        check_writable(file / "below", "--records")


def test_a_file_to_append_to_keeps_what_it_holds_and_one_that_cannot_be_is_named(tmp_path):
    file = tmp_path / "deep" / "file"
    check_file(file, "--records")
    file.write_text("kept")

    check_file(file, "--records")
    assert file.read_text() == "kept"
    with pytest.raises(HarnessError, match=rf"^--records {tmp_path}: the file cannot be written"):
        check_file(tmp_path, "--records")


def test_closing_line_has_the_agreed_fields():
    assert RECORD.line() == "verdict=failed digest=abc events=12 virtual_s=1.500 wall_s=0.250"


def test_records_survive_a_file(tmp_path):
    path = tmp_path / "deep" / "records.jsonl"

    append_record(path, RECORD)
    append_record(path, RECORD)

    read = [RunRecord.from_json(line) for line in path.read_text().splitlines()]
    assert read == [RECORD, RECORD]
