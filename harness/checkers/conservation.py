"""What transfers move is neither made nor lost: every read of all accounts has the same total.

A workload declares its accounts (:class:`harness.history.Conserved`) once they are open. A scan
that covers all of them, at or after that LSN, adds up to the total: torn transactions, half applied
WAL and states that never were do not. Source: the bank test of Jepsen.
"""

from __future__ import annotations

from harness.checkers.deposed import Deposed
from harness.errors import CheckFailed
from harness.history import Conserved, History, Kind, Operation, Outcome

CHECKER = "conservation"


def check_conservation(history: History) -> int:
    """Check every scan that covers declared accounts; returns how many there are."""
    checked = 0
    for timeline, declared in history.conserved.items():
        deposed = Deposed(history.lives.get(timeline, []))
        for operation in history.of(timeline):
            if operation.kind is Kind.SCAN and operation.outcome is Outcome.OK:
                for accounts in declared:
                    if _covers(operation, accounts, deposed):
                        _check_total(operation, accounts)
                        checked += 1
    return checked


def _covers(scan: Operation, accounts: Conserved, deposed: Deposed) -> bool:
    """Whether a scan saw every account, and at a time when all of them were open."""
    first, end = scan.args
    if first > accounts.first or end < accounts.end:
        return False
    if scan.lsn is not None and accounts.opened_lsn is not None:
        return scan.lsn >= accounts.opened_lsn
    is_timeless = scan.source.pinned or deposed.possible(scan)
    return scan.invoked_at_s >= accounts.opened_at_s and not is_timeless


def _check_total(scan: Operation, accounts: Conserved) -> None:
    rows = [row for row in scan.result if accounts.first <= row[0] < accounts.end]
    try:
        total = sum(int(value) for _, value in rows)
    except ValueError as error:
        raise CheckFailed(f"{scan}: a balance is no number: {error}", checker=CHECKER) from error
    if total != accounts.total:
        raise CheckFailed(
            f"{scan}: accounts {accounts.first} … {accounts.end - 1} hold {total}, but "
            f"{accounts.total} since they were opened at {accounts.opened_lsn or 'no known LSN'}",
            checker=CHECKER,
        )
