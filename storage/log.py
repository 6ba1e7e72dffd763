"""How failures are logged: the whole cause chain with backtraces, found again by a trace id.

Three classes of failure, by whose fault it was: a refusal (:class:`RequestError`) is normal life
and costs one INFO line; a failing environment (ports, network) is a WARNING; anything else is a
defect and an ERROR. The last two carry every backtrace. Trace ids come from a per-node counter, so
that two runs of one seed print the same ids.
"""

from __future__ import annotations

import itertools
import logging

from storage.errors import PortError, ProtocolError, RequestError, SeawallError

_CHAIN_LENGTH_MAX = 10
_ENVIRONMENT = (PortError, ProtocolError, OSError, EOFError, TimeoutError)


class TraceIds:
    """Numbers the failures of one node: ``sk0-1``, ``sk0-2`` …"""

    def __init__(self, node: str) -> None:
        assert node, "a node's name is the prefix of its trace ids"
        self._node = node
        self._numbers = itertools.count(1)  # Of several threads, no two get the same.

    def next(self) -> str:
        """A trace id that this incarnation has not used before."""
        return f"{self._node}-{next(self._numbers)}"


def cause_of(error: BaseException) -> BaseException | None:
    """What led to an error, as tracebacks print it; ``None`` if nothing did."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def one_line(error: BaseException) -> str:
    """The error and its causes on one line, outermost first: ``message: caused by message``."""
    parts: list[str] = []
    link: BaseException | None = error
    while link is not None and len(parts) < _CHAIN_LENGTH_MAX:
        parts.append(_named(link))
        link = cause_of(link)
    return ": caused by: ".join(parts).replace("\n", " ")


def _named(error: BaseException) -> str:
    # Our own messages are whole sentences; KeyError('x') says nothing without its class.
    if isinstance(error, SeawallError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def level_of(error: BaseException) -> int:
    """Level to log an error at, by whose fault it was."""
    if isinstance(error, RequestError):
        return logging.INFO
    return logging.WARNING if isinstance(error, _ENVIRONMENT) else logging.ERROR


def log_failure(logger: logging.Logger, doing: str, error: BaseException, *, trace_id: str) -> None:
    """Log that ``doing`` failed: a refusal in one line, anything else with every backtrace."""
    assert trace_id, "a failure without a trace id cannot be found again"
    level = level_of(error)
    how = "refused" if level == logging.INFO else "failed"
    backtrace = None if level == logging.INFO else error
    logger.log(level, "%s %s [%s]: %s", doing, how, trace_id, one_line(error), exc_info=backtrace)
