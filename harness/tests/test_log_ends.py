"""What may lie beyond the end of a log: nothing."""

from __future__ import annotations

import pytest

from harness.checkers.log_ends import LogEnds, segments
from harness.errors import CheckFailed
from harness.tests.reports import Reports

SIZE = 1024 * 1024
FIRST = "timelines/t/l/000000010000000000000001"
SECOND = "timelines/t/l/000000010000000000000002"


def look(end_lsn: int, **left: tuple[str, int]) -> bool:
    """One member adopts a log that ends there; ``left``: a path and where one byte lies in it."""
    files = {FIRST: bytearray(SIZE), SECOND: bytearray(SIZE), f"{FIRST}.tmp": bytearray(b"x")}
    for path, at in left.values():
        files[path][at] = 7

    def contents(node: str, part: str) -> dict[str, bytes]:
        return {path: bytes(data) for path, data in files.items() if part in path}

    told = Reports().add("sk0", "adopted", tenant="t", timeline="l", term=3, end_lsn=end_lsn)
    return LogEnds(contents).observe(told.events[0])


def test_the_last_byte_of_a_log_and_no_further() -> None:
    end_lsn = SIZE + 100

    assert look(end_lsn, last=(FIRST, 99))
    with pytest.raises(CheckFailed, match=r"term 3 .* ends at 0/100064; .* left at 0/100064"):
        look(end_lsn, beyond=(FIRST, 100))


def test_a_segment_that_should_be_gone() -> None:
    with pytest.raises(CheckFailed, match="left at 0/200005"):
        look(SIZE + 100, other=(SECOND, 5))
    assert look(2 * SIZE + 6, other=(SECOND, 5))


def test_only_adopted_logs_are_looked_at() -> None:
    oracle = LogEnds(lambda node, part: {FIRST: b"x" * SIZE})

    assert not oracle.observe(Reports().lsn("sk0", "flush_lsn", SIZE).events[0])


def test_segments_of_any_size_begin_where_their_name_says() -> None:
    found = dict(segments({"t/l/0000000100000002000000FF": bytes(16 * SIZE), "t/l/control": b"x"}))

    assert list(found) == [0x2FF000000]
