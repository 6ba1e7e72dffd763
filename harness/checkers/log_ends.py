"""Nothing lies beyond the end of a log: what a cut leaves there is taken for WAL by some restart.

Whoever adopts a leader's log has removed all that followed it, also what only lay there unknown
since a crash: the next records may fit in front of it exactly, and it would be read as their
continuation. So a member's disk is looked at whenever it says that it has adopted a log. For worlds
whose disks can be read at one moment, in which their nodes do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from harness.backend import Event
from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "log_ends"
NAME_LENGTH = 24

Contents = Callable[[str, str], Mapping[str, bytes]]
"""Of a node: what its files hold whose path contains a text, by path."""


class LogEnds:
    """Looks at the segments of a timeline when a member says where its log ends."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def observe(self, event: Event) -> bool:
        """Look, if a log was adopted; whether it was."""
        if event.kind != "adopted":
            return False
        fields = event.fields
        end_lsn = fields["end_lsn"]
        assert isinstance(end_lsn, int), f"{event} has no number"
        directory = f"{fields['tenant']}/{fields['timeline']}/"
        for begin_lsn, data in segments(self._contents(event.node, directory)):
            beyond = data[max(0, end_lsn - begin_lsn) :]
            if beyond.count(0) < len(beyond):
                at = begin_lsn + len(data) - len(beyond.lstrip(b"\0"))
                raise CheckFailed(
                    f"at {event.at_s:.6f} s {event.node} has adopted the log of term "
                    f"{fields['term']} of timeline {fields['timeline']}, which ends at "
                    f"{Lsn(end_lsn)}; on its disk something is left at {Lsn(at)}",
                    checker=CHECKER,
                )
        return True


def segments(files: Mapping[str, bytes]) -> Iterator[tuple[int, bytes]]:
    """The WAL segments among files: where each begins, and its bytes."""
    for path, data in files.items():
        name = path.rpartition("/")[2]
        if len(name) == NAME_LENGTH and data:
            per_xlog_id = 0x100000000 // len(data)
            yield (int(name[8:16], 16) * per_xlog_id + int(name[16:], 16)) * len(data), data
