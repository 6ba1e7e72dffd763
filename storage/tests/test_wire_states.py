"""The state tables: what is listed leads somewhere sensible, what is not raises."""

from __future__ import annotations

import itertools

import pytest

from storage.errors import ProtocolError
from storage.wire import messages as m
from storage.wire.states import COPIES, COPY_STARTS, PHASES, Copy, Phase, Progress, Sender

C, S = Sender.CLIENT, Sender.SERVER
Step = tuple[Sender, type]


def walk(steps: list[Step]) -> Progress:
    progress = Progress(Phase.IDLE)
    for sender, kind in steps:
        progress.advance(sender, kind)
    return progress


STORIES: dict[str, tuple[list[Step], Phase, Copy]] = {
    "simple query": (
        [(C, m.Query), (S, m.RowDescription), (S, m.DataRow), (S, m.CommandComplete),
         (S, m.ReadyForQuery)], Phase.IDLE, Copy.NONE,
    ),
    "failed simple query": (
        [(C, m.Query), (S, m.ErrorResponse), (S, m.ReadyForQuery)], Phase.IDLE, Copy.NONE,
    ),
    "copy out that fails half way": (
        [(C, m.Query), (S, m.CopyOutResponse), (S, m.CopyData), (S, m.ErrorResponse),
         (S, m.ReadyForQuery)], Phase.IDLE, Copy.NONE,
    ),
    "copy in given up by the client": (
        [(C, m.Query), (S, m.CopyInResponse), (C, m.CopyData), (C, m.CopyFail),
         (S, m.ErrorResponse), (S, m.ReadyForQuery)], Phase.IDLE, Copy.NONE,
    ),
    "copy in refused by the server while data is on its way": (
        [(C, m.Query), (S, m.CopyInResponse), (S, m.ErrorResponse), (S, m.ReadyForQuery),
         (C, m.CopyData), (C, m.CopyDone)], Phase.IDLE, Copy.NONE,
    ),
    "both ways, client ends first": (
        [(C, m.Query), (S, m.CopyBothResponse), (C, m.CopyDone), (S, m.CopyData),
         (S, m.CopyDone), (S, m.CommandComplete), (S, m.ReadyForQuery)], Phase.IDLE, Copy.NONE,
    ),
    "both ways, server ends first": (
        [(C, m.Query), (S, m.CopyBothResponse), (S, m.CopyDone), (C, m.CopyData),
         (C, m.CopyDone), (S, m.CommandComplete), (S, m.ReadyForQuery)], Phase.IDLE, Copy.NONE,
    ),
    "extended series": (
        [(C, m.Parse), (S, m.ParseComplete), (C, m.Bind), (C, m.Describe), (C, m.Execute),
         (C, m.Sync), (S, m.BindComplete), (S, m.NoData), (S, m.CommandComplete),
         (S, m.ReadyForQuery)], Phase.IDLE, Copy.NONE,
    ),
    "extended error skips to the Sync": (
        [(C, m.Parse), (S, m.ErrorResponse), (C, m.Bind), (C, m.Execute), (C, m.Flush)],
        Phase.SKIPPING, Copy.NONE,
    ),
    "Sync ends the skipping": (
        [(C, m.Parse), (S, m.ErrorResponse), (C, m.Bind), (C, m.Sync)],
        Phase.SYNCING, Copy.NONE,
    ),
    "Sync inside an extended copy in is ignored": (
        [(C, m.Parse), (C, m.Bind), (C, m.Execute), (S, m.CopyInResponse), (C, m.Sync),
         (C, m.CopyDone)], Phase.EXTENDED, Copy.NONE,
    ),
    "client leaves in the middle of a copy": (
        [(C, m.Query), (S, m.CopyBothResponse), (C, m.Terminate)], Phase.CLOSED, Copy.NONE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_stories_of_the_protocol(story: str) -> None:
    steps, phase, copy = STORIES[story]
    assert walk(steps) == Progress(phase, copy)


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([(S, m.DataRow)], "server may not send DataRow while the session waits for a command"),
        ([(C, m.Query), (C, m.Query)], "client may not send Query while the session runs a simple"),
        ([(C, m.Query), (S, m.CopyOutResponse), (C, m.CopyData)], "in a copy .server sends"),
        ([(C, m.Query), (S, m.CopyInResponse), (S, m.CopyData)], "in a copy .client sends"),
        ([(C, m.Query), (S, m.CopyBothResponse), (C, m.CopyDone), (C, m.CopyData)], "finished"),
        ([(C, m.Query), (S, m.CopyOutResponse), (S, m.ReadyForQuery)], "ReadyForQuery in a copy"),
        ([(C, m.Terminate), (C, m.Query)], "is over"),
        ([(C, m.Startup)], "Startup"),
        ([(C, m.Sync), (C, m.Sync)], "answers a Sync"),
    ],
)
def test_what_is_not_listed_raises(steps: list[Step], complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        walk(steps)


def test_every_state_can_be_reached_and_left() -> None:
    phases = {target for target in PHASES.values()} | {Phase.STARTUP}
    assert phases == set(Phase)
    assert {state for state, _, _ in PHASES} == set(Phase) - {Phase.CLOSED}
    copies = set(COPIES.values()) | set(COPY_STARTS.values())
    assert copies == set(Copy)
    assert {state for state, _, _ in COPIES} == set(Copy) - {Copy.NONE}


def test_an_error_ends_every_copy() -> None:
    for copy, phase in itertools.product(
        set(Copy) - {Copy.NONE}, (Phase.SIMPLE, Phase.EXTENDED, Phase.SYNCING)
    ):
        progress = Progress(phase, copy)
        progress.advance(S, m.ErrorResponse)
        assert progress.copy is Copy.NONE


def test_nobody_speaks_after_the_end() -> None:
    for kind in {kind for _, _, kind in PHASES}:
        for sender in Sender:
            with pytest.raises(ProtocolError):
                Progress(Phase.CLOSED).advance(sender, kind)
