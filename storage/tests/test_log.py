"""Failures in the log: level by whose fault it was, the whole chain, numbered trace ids."""

from __future__ import annotations

import logging

import pytest

from storage.errors import CorruptData, NotFound, PortError, ProtocolError
from storage.log import TraceIds, log_failure, one_line

logger = logging.getLogger("test")


def chained() -> ValueError:
    """An error with a cause that has a context."""
    try:
        try:
            try:
                raise KeyError("k")
            except KeyError:
                raise PortError("disk\naway")  # noqa: B904 - an implicit context is meant
        except PortError as error:
            raise ValueError from error
    except ValueError as error:
        return error


def test_one_line_names_every_link_of_the_chain() -> None:
    assert one_line(chained()) == ("ValueError: caused by: disk away: caused by: KeyError: 'k'")
    assert one_line(NotFound("no tenant")) == "no tenant"
    assert one_line(NotFound()) == "NotFound"


def test_a_context_that_was_suppressed_is_not_told() -> None:
    try:
        try:
            raise KeyError("secret")
        except KeyError:
            raise ValueError("shown") from None
    except ValueError as error:
        assert one_line(error) == "ValueError: shown"


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert one_line(first).count("ValueError") == 10


@pytest.mark.parametrize(
    ("error", "level", "backtrace"),
    [
        (NotFound("x"), logging.INFO, False),
        (PortError("x"), logging.WARNING, True),
        (ConnectionResetError("x"), logging.WARNING, True),
        (TimeoutError(), logging.WARNING, True),
        (EOFError(), logging.WARNING, True),
        (ProtocolError("x"), logging.WARNING, True),
        (CorruptData("x"), logging.ERROR, True),
        (KeyError("x"), logging.ERROR, True),
    ],
)
def test_level_says_whose_fault_it_was(
    error: Exception, level: int, backtrace: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log_failure(logger, "GET /x", error, trace_id="sk0-1")
    (record,) = caplog.records
    assert record.levelno == level
    assert (record.exc_info is not None) is backtrace
    word = "refused" if level == logging.INFO else "failed"
    assert record.getMessage().startswith(f"GET /x {word} [sk0-1]: ")
    assert "\n" not in record.getMessage()


def test_trace_ids_count_per_node() -> None:
    first, second = TraceIds("sk0"), TraceIds("sk0")
    assert [first.next(), first.next(), second.next()] == ["sk0-1", "sk0-2", "sk0-1"]
