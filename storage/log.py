"""How failures are logged: the whole cause chain with backtraces, found again by a trace id.

A refusal (:class:`RequestError`) is normal life and costs one INFO line; anything else that
reaches a front end is a defect or a broken environment and is logged at ERROR. Trace ids come
from a per-node counter, so that two runs of one seed print the same ids.
"""

from __future__ import annotations

import logging

from storage.errors import RequestError


class TraceIds:
    """Numbers the failures of one node: ``sk0-1``, ``sk0-2`` …"""

    def __init__(self, node: str) -> None:
        assert node, "a node's name is the prefix of its trace ids"
        self._node = node
        self._issued = 0

    def next(self) -> str:
        """A trace id that this incarnation has not used before."""
        self._issued += 1
        return f"{self._node}-{self._issued}"


def one_line(error: BaseException) -> str:
    """The error and its causes on one line, outermost first: ``message: caused by message``."""
    parts: list[str] = []
    link: BaseException | None = error
    while link is not None and len(parts) < 10:
        parts.append(f"{link}" if str(link) else type(link).__name__)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return ": caused by: ".join(parts).replace("\n", " ")


def log_failure(
    logger: logging.Logger, doing: str, error: BaseException, *, trace_id: str
) -> None:
    """Log that ``doing`` failed: a refusal in one INFO line, else ERROR with every backtrace."""
    assert trace_id, "a failure without a trace id cannot be found again"
    if isinstance(error, RequestError):
        logger.info("%s refused [%s]: %s", doing, trace_id, one_line(error))
    else:
        logger.error(
            "%s failed [%s]: %s", doing, trace_id, one_line(error), exc_info=error
        )
