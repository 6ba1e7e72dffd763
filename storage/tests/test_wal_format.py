"""Arithmetic of WAL positions."""

import pytest

from storage.wal.format import record_end

MIB = 1 << 20


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0x1000028, 0x10000A0),
        (0x1002000 - 120, 0x1002000),
        (0x1002000 - 114, 0x1002000),
        (0x1002000 - 112, 0x1002000 + 24 + 8),
        (0x1100000 - 112, 0x1100000 + 40 + 8),
    ],
    ids=["within a page", "aligned to its end", "exactly its end", "crosses", "crosses a segment"],
)
def test_record_end_skips_headers_and_aligns(start, end):
    assert record_end(start, 114, MIB) == end
