"""No node logged a warning or an error that nobody expected.

What a scenario expects it allows, by pattern and with a reason; an allowance that matched nothing
is handed back, so that the list does not outlive its reasons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.backend import LogLine
from harness.errors import CheckFailed

CHECKER = "logs"
SHOWN = 5
QUIET_LEVELS = frozenset({"DEBUG", "INFO"})


@dataclass(frozen=True)
class Allowance:
    """Log lines to expect: ``pattern`` is searched in the text, ``node`` is a pattern of the whole
    name; ``reason`` is for people."""

    pattern: str
    reason: str
    node: str = ".*"

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError(f"allowance {self.pattern!r} gives no reason")
        re.compile(self.pattern)
        re.compile(self.node)

    def covers(self, line: LogLine) -> bool:
        """Whether this line is expected."""
        return (
            re.fullmatch(self.node, line.node) is not None
            and re.search(self.pattern, line.text) is not None
        )


def check_logs(lines: Iterable[LogLine], allowances: Sequence[Allowance] = ()) -> list[Allowance]:
    """Raise ``CheckFailed`` for lines at WARNING or above that no allowance covers.

    Returns the allowances that covered nothing.
    """
    unused = dict.fromkeys(allowances)
    unexpected: list[LogLine] = []
    for line in lines:
        if line.level in QUIET_LEVELS:
            continue
        covering = [allowance for allowance in allowances if allowance.covers(line)]
        for allowance in covering:
            unused.pop(allowance, None)
        if not covering:
            unexpected.append(line)
    if unexpected:
        shown = "\n".join(
            f"  {line.at_s:.6f} {line.node} {line.level} {line.text}" for line in unexpected[:SHOWN]
        )
        raise CheckFailed(
            f"{len(unexpected)} unexpected log lines, the first of them:\n{shown}", checker=CHECKER
        )
    return list(unused)
