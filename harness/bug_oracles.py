"""The oracles of the bug bank, O1 … O13, and which of them spoke when a run went red."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from harness.endpoint import OutcomeUnknown, Refused
from harness.errors import CheckFailed, NodeDied, NotLive
from storage.http.client import HttpError
from storage.wire.errors import ServerError

ORACLES: Mapping[str, str] = {
    "O1": "acknowledged commits are durable",
    "O2": "single history",
    "O3": "positions do not go back",
    "O4": "order of positions on a node",
    "O5": "one leader, one vote per term",
    "O6": "reads equal the model",
    "O7": "the bucket is whole",
    "O8": "a lost node is rebuilt",
    "O9": "acknowledged administration persists",
    "O10": "live once healed",
    "O11": "clean stop, nothing leaks",
    "O12": "no internal failure",
    "O13": "no spurious refusal",
}
"""As ``docs/bug-bank.md`` numbers them. O8 speaks at the end of every simulated run; when a
scenario itself loses a node, O1, O6 or O7 may speak first."""

OTHER = "other"
"""What is none of them: an assertion of the scenario itself."""

INTERNAL = "XX"
"""SQLSTATEs of class "internal error" begin so; data corruption is one of them."""

_BY_CHECKER: Mapping[str, str] = {
    "acknowledged_commits": "O1",
    "wal_explains_history": "O1",
    "conservation": "O1",
    "safekeepers_agree": "O2",
    "offloaded_wal": "O2",
    "log_ends": "O2",
    "commit_order": "O2",
    "wal_model": "O2",
    "wal tap": "O2",
    "crash_order": "O3",
    "list_append": "O6",
    "linearizable": "O6",
    "dependency_cycles": "O6",
    "pages_equal_wal": "O6",
    "reads_equal_model": "O6",
    "past_reads": "O6",
    "bucket": "O7",
    "reattachment": "O8",
    "admin_persists": "O9",
    "attachments": "O9",
    "nothing_leaked": "O11",
    "tasks_heed": "O11",
    "stop": "O11",
    "crash": "O12",
    "logs": "O12",
    "refusals": "O13",
}

_BY_WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "lsn_order": (
        ("two leaders|votes in term|term falls", "O5"),
        ("exceeds|below", "O4"),
        ("", "O3"),
    ),
    "quorum_order": (("is elected", "O5"), ("", "O1")),
    "consensus_messages": (("votes in term|two leaders|leads in|is at term", "O5"), ("", "O1")),
    "safekeeper_logs": (
        ("after its restart|wrote no further|its log is of terms|of a log of terms", "O2"),
        ("when it gave its vote", "O3"),
        ("", "O1"),
    ),
    "eventually": (("cleans the bucket", "O7"), ("is attached|detach", "O9"), ("", "O10")),
}
"""Checkers that speak for several oracles: the first pattern found in the message decides."""


def oracle_of(error: BaseException) -> str:
    """Which oracle of the bank an error is the voice of; :data:`OTHER` if of none."""
    if isinstance(error, NodeDied):
        return "O12"
    if isinstance(error, CheckFailed):
        for pattern, oracle in _BY_WORDS.get(error.checker, ()):
            if re.search(pattern, str(error)):
                return oracle
        found = _BY_CHECKER.get(error.checker)
        return found or ("O10" if isinstance(error, NotLive) else OTHER)
    if isinstance(error, TimeoutError) or "TimeoutError" in str(error):
        return "O10"
    if isinstance(error, HttpError):
        return "O12" if error.status == HTTPStatus.INTERNAL_SERVER_ERROR else "O13"
    if isinstance(error, Refused | ServerError):
        return "O12" if error.sqlstate.startswith(INTERNAL) else "O13"
    return "O12" if isinstance(error, OutcomeUnknown) else OTHER


def in_order(oracles: Mapping[str, int]) -> dict[str, int]:
    """Counts by oracle, O1 first."""
    known = [*ORACLES, OTHER]
    return {oracle: oracles[oracle] for oracle in known if oracle in oracles}
