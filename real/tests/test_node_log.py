import json
import logging

import pytest

from harness.backend import LogLine
from real import node_log


@pytest.fixture
def log_file(tmp_path):
    """`logging` as a node sets it up, into a file instead of stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    path = tmp_path / "node.log"
    with path.open("w") as stream:
        node_log.start_logging()
        root.handlers[0].setStream(stream)
        yield path, stream
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def test_records_come_back_with_their_tracebacks_on_one_record(log_file):
    path, stream = log_file
    logging.getLogger("sk").info("two\nlines")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("sk").exception("failed")
    stream.flush()

    first, second = node_log.read_log(path, "sk0", 0.0)

    assert (first.node, first.level, first.text) == ("sk0", "INFO", "sk: two\nlines")
    assert second.level == "ERROR"
    assert second.text.startswith("sk: failed\nTraceback (most recent call last):\n")
    assert second.text.endswith("\nValueError: why")
    assert 0 < first.at_s <= second.at_s


def test_stderr_that_came_past_logging_is_an_error_of_its_own(tmp_path):
    path = tmp_path / "node.log"
    path.write_text("Fatal!\n10.500000 INFO a: b\n  | c\nSegmentation fault\n11.000000 INFO d: e")

    assert list(node_log.read_log(path, "n", 10.0)) == [
        LogLine(0.0, "n", "ERROR", "Fatal!"),
        LogLine(0.5, "n", "INFO", "a: b\nc"),
        LogLine(0.5, "n", "ERROR", "Segmentation fault"),
        LogLine(1.0, "n", "INFO", "d: e"),
    ]


def test_no_file_is_no_records(tmp_path):
    assert list(node_log.read_log(tmp_path / "none", "n", 0.0)) == []
    assert list(node_log.read_events(tmp_path / "none", "n", 0.0)) == []


def test_events_come_back_and_a_line_that_a_crash_cut_is_left_out(tmp_path):
    path = tmp_path / "events.jsonl"
    sink = node_log.EventFile(path)
    sink("lsn", {"name": "flush_lsn", "value": 7})
    assert path.read_text() == ""
    sink.close()
    with path.open("a") as file:
        file.write(json.dumps([1.0, "lsn", {}])[:-3])

    [event] = node_log.read_events(path, "sk0", 0.0)

    assert (event.node, event.kind) == ("sk0", "lsn")
    assert event.fields == {"name": "flush_lsn", "value": 7}


def test_the_next_incarnation_does_not_go_on_in_a_line_that_a_crash_cut(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('[1.0, "first", {}]\n[2.0, "cut')
    sink = node_log.EventFile(path)
    sink("second", {})
    sink.close()

    assert [event.kind for event in node_log.read_events(path, "n", 0.0)] == ["first", "second"]


def test_events_are_written_before_they_are_too_many(tmp_path):
    path = tmp_path / "events.jsonl"
    sink = node_log.EventFile(path)
    for number in range(node_log.EVENTS_IN_MEMORY_MAX):
        sink("tick", {"number": number})
    assert len(path.read_text().splitlines()) == node_log.EVENTS_IN_MEMORY_MAX
    sink.close()
