"""Messages inside replication streams: known bytes, there and back, garbage refused."""

from __future__ import annotations

import pytest

from storage.errors import ProtocolError
from storage.lsn import Lsn
from storage.wire.replication import (
    HotStandbyFeedback,
    Keepalive,
    StandbyStatus,
    XLogData,
    keepalive,
    parse_from_server,
    parse_from_standby,
    standby_status,
    xlog_data_header,
)


def test_known_bytes_of_the_specification() -> None:
    assert xlog_data_header(1, 2, -3) == (
        b"w" + (1).to_bytes(8) + (2).to_bytes(8) + (-3).to_bytes(8, signed=True)
    )
    assert keepalive(1, 2, reply_requested=True) == b"k" + (1).to_bytes(8) + (2).to_bytes(8) + b"\1"
    status = StandbyStatus(Lsn(1), Lsn(2), Lsn(3), 4)
    assert standby_status(status) == (
        b"r" + b"".join(each.to_bytes(8) for each in (1, 2, 3, 4)) + b"\0"
    )


def test_there_and_back() -> None:
    largest = Lsn(2**64 - 1)
    data = XLogData(Lsn(0x16B3740), largest, -1, b"\0wal")
    header = xlog_data_header(data.start_lsn, data.end_lsn, data.sent_at_us)
    assert parse_from_server(header + data.data) == data
    assert parse_from_server(header) == XLogData(data.start_lsn, largest, -1, b"")
    for asked in (True, False):
        message = Keepalive(largest, 5, asked)
        assert parse_from_server(keepalive(largest, 5, reply_requested=asked)) == message
        status = StandbyStatus(Lsn(9), Lsn(8), Lsn(7), 6, asked)
        assert parse_from_standby(standby_status(status)) == status


def test_feedback_of_a_hot_standby_is_read() -> None:
    numbers = (2**32 - 1, 0, 4, 5)
    message = b"h" + (1).to_bytes(8) + b"".join(each.to_bytes(4) for each in numbers)
    assert parse_from_standby(message) == HotStandbyFeedback(1, *numbers)


@pytest.mark.parametrize("message", [b"", b"w", b"w" * 24, b"k" * 17, b"k" * 19, b"x" * 40])
def test_a_server_message_that_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a replication message"):
        parse_from_server(message)


@pytest.mark.parametrize("message", [b"", b"r" * 33, b"r" * 35, b"h" * 24, b"w" * 40])
def test_a_standby_message_that_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a standby message"):
        parse_from_standby(message)
