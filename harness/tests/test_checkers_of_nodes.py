"""Oracles that read logs, tasks and safekeepers."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

import pytest

from harness.backend import LogLine
from harness.checkers.logs import Allowance, check_logs
from harness.checkers.nothing_leaked import check_connections_gone, check_tenant_gone
from harness.checkers.safekeepers_agree import check_safekeepers_agree
from harness.errors import CheckFailed, NotYet
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.lsn import Lsn

TIMELINE = TenantTimelineId(TenantId("a" * 32), TimelineId("b" * 32))


def line(level: str, text: str, node: str = "sk0") -> LogLine:
    return LogLine(1.5, node, level, text)


def test_quiet_lines_pass() -> None:
    assert check_logs([line("INFO", "all is well"), line("DEBUG", "error")]) == []


@pytest.mark.parametrize("level", ["WARNING", "ERROR", "CRITICAL"])
def test_unexpected_lines_are_shown(level: str) -> None:
    with pytest.raises(CheckFailed, match=f"sk0 {level} disk on fire"):
        check_logs([line("INFO", "x"), line(level, "disk on fire")])


def test_allowances_cover_by_pattern_and_node() -> None:
    allowance = Allowance("on fire", "the scenario burns it", node="sk.*")
    lines = [line("ERROR", "disk on fire")]
    assert check_logs(lines, [allowance]) == []
    with pytest.raises(CheckFailed, match="ps0"):
        check_logs([*lines, line("ERROR", "disk on fire", "ps0")], [allowance])


def test_an_unused_allowance_is_handed_back() -> None:
    used, unused = Allowance("fire", "burns"), Allowance("flood", "drowns")
    assert check_logs([line("ERROR", "fire")], [used, unused]) == [unused]
    with pytest.raises(ValueError, match="no reason"):
        Allowance("x", "")


def task(kind: str, tenant: str | None = None) -> dict[str, str | None]:
    return {"kind": kind, "name": f"a {kind}", "tenant_id": tenant, "timeline_id": None}


def test_tasks_of_a_tenant_that_left() -> None:
    others = [task("gc", "other"), task("http_server")]
    check_tenant_gone("ps0", others, "gone")
    with pytest.raises(CheckFailed, match=r"ps0 still runs for tenant gone: gc a gc$"):
        check_tenant_gone("ps0", [*others, task("gc", "gone")], "gone")


def test_connections_of_clients_that_have_stopped() -> None:
    check_connections_gone("sk0", [task("wire_listener"), task("wal_sender", "t")])
    with pytest.raises(NotYet, match=r"sk0 still serves.*: wire_connection a wire_connection$"):
        check_connections_gone("sk0", [task("wire_listener"), task("wire_connection", "t")])
    with pytest.raises(NotYet, match=r" and 2 more$"):
        check_connections_gone("sk0", [task("wire_connection")] * 10)


@dataclass
class State:
    commit_lsn: Lsn
    flush_lsn: Lsn
    timeline_start_lsn: Lsn
    last_log_term: int


class MemorySafekeeper:
    def __init__(self, name: str, wal: bytes, commit: int, last_log_term: int = 0) -> None:
        self.name = name
        self.wal = wal
        self.commit = commit
        self.last_log_term = last_log_term or int(name[-1:] + "1", 16)

    async def timeline(self, timeline: TenantTimelineId) -> State:
        return State(
            Lsn(1000 + self.commit), Lsn(1000 + len(self.wal)), Lsn(1000), self.last_log_term
        )

    async def digest(self, timeline: TenantTimelineId, start: Lsn, end: Lsn) -> str:
        assert 1000 <= start <= end <= 1000 + len(self.wal)
        return hashlib.sha256(self.wal[start - 1000 : end - 1000]).hexdigest()


def compare(*safekeepers: MemorySafekeeper) -> Lsn:
    return asyncio.run(check_safekeepers_agree(safekeepers, TIMELINE))


def test_safekeepers_that_agree_below_the_lowest_commit() -> None:
    wal = bytes(range(200))
    other = wal[:100] + b"tail of another term"
    assert compare(MemorySafekeeper("sk0", wal, 150), MemorySafekeeper("sk1", other, 100)) == Lsn(
        1100
    )


@pytest.mark.parametrize("position", [0, 1, 63, 64, 98, 99])
def test_the_first_byte_that_differs_is_found(position: int) -> None:
    wal = bytes(range(200))
    damaged = bytearray(wal)
    damaged[position] ^= 1
    damaged[199] ^= 1
    with pytest.raises(CheckFailed, match=f"sk0 and sk2 differ at {Lsn(1000 + position)},"):
        compare(
            MemorySafekeeper("sk0", wal, 150),
            MemorySafekeeper("sk1", wal, 100),
            MemorySafekeeper("sk2", bytes(damaged), 150),
        )


def test_a_safekeeper_that_knows_of_a_commit_it_lacks_is_compared_up_to_what_it_has() -> None:
    wal = bytes(range(200))
    assert compare(MemorySafekeeper("a", wal, 200), MemorySafekeeper("b", wal[:50], 200)) == 1050
    assert compare(MemorySafekeeper("a", wal, 0), MemorySafekeeper("b", wal, 0)) == 1000


def test_logs_whose_newest_entries_are_of_one_term_agree_to_the_end() -> None:
    wal, other = bytes(range(200)), bytes(range(100)) + bytes(60)
    one = MemorySafekeeper("sk0", wal, 50, last_log_term=2)
    compare(one, MemorySafekeeper("sk1", other, 50, last_log_term=1))
    compare(one, MemorySafekeeper("sk1", wal[:160], 50, last_log_term=2))
    with pytest.raises(CheckFailed, match=f"differ at {Lsn(1100)}, below {Lsn(1160)}"):
        compare(one, MemorySafekeeper("sk1", other, 50, last_log_term=2))
