"""Waits for a node: until it answers, or why it refuses; until it has ended by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from harness.errors import NotYet
from storage.http.client import HttpError

if TYPE_CHECKING:
    from harness.nodes import NodeHandle
    from harness.world import World

__all__ = ["HttpError", "refusal", "until_ended", "when_ready"]

T = TypeVar("T")
HTTP_NOT_READY = 503


async def when_ready(
    world: World, request: Callable[[], Awaitable[T]], *, within_s: float = 30.0
) -> T:
    """Make a request again and again while the node answers that it is not ready.

    ``NotLive`` after ``within_s`` seconds; any other refusal passes through.
    """

    async def attempt() -> T:
        try:
            return await request()
        except HttpError as error:
            if error.status == HTTP_NOT_READY:
                raise NotYet(str(error)) from error
            raise

    return await world.eventually(attempt, within_s=within_s, what="the node gets ready")


async def refusal(request: Awaitable[object]) -> int | None:
    """The HTTP status with which a node refuses a request, ``None`` if it does not."""
    try:
        await request
    except HttpError as error:
        return error.status
    return None


async def until_ended(world: World, node: NodeHandle) -> None:
    """Wait until a node whose failpoint has it exit is gone; its connections may break before."""

    async def ended() -> None:
        if node.running:
            raise NotYet(f"{node.name} still runs")

    await world.eventually(ended, what=f"{node.name} ends by itself")
