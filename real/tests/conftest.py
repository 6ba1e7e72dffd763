import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pytest

from real.backend import RealBackend, RealOptions
from real.loop import NamedHostLoop
from real.session import RealSession

TOYS = RealOptions(roles="real.tests.toy_roles:ROLES", ports="real.tests.toy_roles:no_ports")

Story = Callable[[RealBackend], Awaitable[None]]


@pytest.fixture(scope="session")
def toy_session() -> Iterator[RealSession]:
    session = RealSession(["real.tests.toy_roles"], with_services=False)
    yield session
    session.close()


@pytest.fixture
def play(toy_session: RealSession) -> Callable[[Story], RealBackend]:
    """Runs a story on a fresh cluster of toy nodes; returns the closed backend."""
    return partial(play_on, toy_session)


def play_on(session: RealSession, story: Story) -> RealBackend:
    """Runs a story on a session of its own; returns the closed backend."""

    async def whole() -> RealBackend:
        backend = RealBackend(session, TOYS)
        try:
            async with asyncio.timeout(30):
                await story(backend)
        finally:
            await backend.close()
        return backend

    with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
        return runner.run(whole())
