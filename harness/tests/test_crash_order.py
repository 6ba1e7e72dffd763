"""What must outlive crashes, and what is excused."""

from __future__ import annotations

import pytest

from harness.checkers.crash_order import check_crash_order
from harness.errors import CheckFailed
from harness.tests.reports import Reports


def committed() -> Reports:
    return (
        Reports().lsn("sk0", "flush_lsn", 32).lsn("sk0", "commit_lsn", 16).process("sk0", "started")
    )


def remote() -> Reports:
    return Reports().lsn("ps0", "remote_consistent_lsn", 16).tenant("ps1", "Attaching")


GOOD = {
    "an uncommitted tail may go": committed().lsn("sk0", "flush_lsn", 16),
    "another safekeeper": committed().lsn("sk1", "flush_lsn", 8),
    "another timeline": committed().lsn("sk0", "flush_lsn", 8, "other"),
    "a wiped disk": committed().process("sk0", "wiped").lsn("sk0", "flush_lsn", 8),
    "a damaged disk": committed().add("harness", "fault", verb="rot", target="sk1 sk0", damage="x")
        .lsn("sk0", "flush_lsn", 8),
    "an attachment that has it all": remote().lsn("ps1", "last_record_lsn", 16),
    "an older attachment": Reports().tenant("ps1", "Attaching")
        .lsn("ps0", "remote_consistent_lsn", 16).lsn("ps1", "last_record_lsn", 8),
}  # fmt: skip

BAD = {
    "sk0 has flush_lsn 0/8 .* below 0/10, a commit": committed().lsn("sk0", "flush_lsn", 8),
    "flush_lsn 0/F": committed().process("sk1", "wiped").lsn("sk0", "flush_lsn", 15),
    "sk0 has flush_lsn 0/4": committed().process("sk0", "wiped").lsn("sk0", "commit_lsn", 8)
        .lsn("sk0", "flush_lsn", 4),
    "has flush_lsn 0/3": committed().add("harness", "fault", verb="kill", target="sk0")
        .lsn("sk0", "flush_lsn", 3),
    "ps1 has last_record_lsn 0/8 .* object store": remote().lsn("ps1", "last_record_lsn", 8),
    "ps0 has disk_consistent_lsn 0/8": remote().tenant("ps0", "Attaching")
        .lsn("ps0", "disk_consistent_lsn", 8),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_is_allowed(name: str) -> None:
    assert check_crash_order(GOOD[name].events) == len(GOOD[name].events)


@pytest.mark.parametrize("says", BAD)
def test_what_was_lost(says: str) -> None:
    with pytest.raises(CheckFailed, match=says):
        check_crash_order(BAD[says].events)
