"""The liveness phase: a healed core works again within a bound, or we say what is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from harness.checkers.followers import is_live
from harness.errors import HarnessError, NotLive, NotYet
from harness.faulting.control_plane import ASKING
from harness.faulting.nemesis import Nemesis
from harness.faulting.stage import Stage
from harness.nodes import PageserverHandle, SafekeeperHandle

COMMITS = 10
PULSES = 8
AT_ONCE = 3
FIRST_KEY = 8192
OVERLAP_S = 0.002
"""About how long a commit takes: the others begin while the first is on its way."""
SILENCE_S = 0.02
PROMPT_S = 0.15
"""How long a write may take where nothing is wrong; heartbeats come less often than that."""
ASK_S_MAX = 2.0


class Liveness:
    """What must come true once faults are over, each within ``within_s`` seconds."""

    def __init__(self, stage: Stage, nemesis: Nemesis, within_s: float) -> None:
        self._stage = stage
        self._nemesis = nemesis
        self._within_s = within_s
        self._world = stage.world
        self._timeline = stage.traffic.primary.timeline
        self._chance = stage.world.generator("pulses")

    async def tenant_is_home(self) -> None:
        """The control plane got what it wants."""

        async def settled() -> None:
            if not self._stage.control.settled.is_set():
                raise NotYet(f"the tenant is not settled on {self._stage.control.home.name}")

        await self._demand(lambda: self._eventually(settled, "the tenant's home"))

    async def commits_flow(self) -> None:
        """The clients' writes are acknowledged again."""
        self._stage.traffic.break_off(self._stage.traffic.primary.name)
        load = self._stage.traffic.load
        await self._demand(lambda: load.progress(COMMITS, within_s=self._within_s))

    async def pageserver_follows(self) -> None:
        """The tenant's pageserver has all that was acknowledged by now, and so do reads."""
        committed = self._world.history.acknowledged_lsn(str(self._timeline))

        async def follows() -> None:
            found = (await self._ask(self._stage.control.home)).last_record_lsn
            if found < committed:
                raise NotYet(f"{self._stage.control.home.name} is at {found} of {committed}")

        await self._demand(lambda: self._eventually(follows, f"ingest of {committed}"))

    async def safekeepers_agree(self, names: tuple[str, ...]) -> None:
        """Every safekeeper named, unless its copy is lost, has all that was acknowledged by now."""
        committed = self._world.history.acknowledged_lsn(str(self._timeline))

        async def agree() -> None:
            for safekeeper in self._stage.cluster.safekeepers:
                if safekeeper.name in names and safekeeper.name not in self._stage.lost:
                    found = (await self._ask(safekeeper)).commit_lsn
                    if found < committed:
                        raise NotYet(f"{safekeeper.name} knows {found} of {committed}")

        await self._demand(lambda: self._eventually(agree, f"every safekeeper at {committed}"))

    async def commits_are_prompt(self) -> None:
        """Few writes shortly after each other, then silence: nothing comes along that would wake
        whoever was not woken for them. Where time is real, cores are shared, and nothing is said.
        """
        if not is_live(self._world):
            return
        load = self._stage.traffic.load
        load.pause()
        try:
            for pulse in range(PULSES):
                waits_s = await self._pulse(pulse)
                await asyncio.sleep(SILENCE_S)
                # The first ones have to connect, and to get the page.
                if pulse and max(waits_s) > PROMPT_S:
                    told = ", ".join(f"{wait_s:.3f}" for wait_s in waits_s)
                    raise NotLive(
                        f"nothing is wrong, and writes take {told} s; {PROMPT_S} s are allowed",
                        checker="liveness",
                    )
        finally:
            load.resume()

    async def _pulse(self, pulse: int) -> list[float]:
        """Writes that overlap; how long each took."""

        async def one(number: int) -> float:
            await asyncio.sleep(self._chance.uniform(0.0, OVERLAP_S) if number else 0.0)
            begun_s = self._world.now_s()
            await clients[number].put(FIRST_KEY + number, f"{clients[number].process}: {pulse}")
            return self._world.now_s() - begun_s

        primary = self._stage.traffic.primary
        clients = [primary.named(f"{primary.process}/pulse{n}") for n in range(AT_ONCE)]
        return await asyncio.gather(*(one(number) for number in range(AT_ONCE)))

    async def upload_works(self) -> None:
        """A checkpoint reaches S3."""

        async def uploaded() -> None:
            try:
                await self._stage.control.home.checkpoint(self._timeline)
            except ASKING as error:
                raise NotYet(f"checkpoint on {self._stage.control.home.name}: {error}") from error

        await self._demand(lambda: self._eventually(uploaded, "a checkpoint"))

    async def _eventually(self, check: Callable[[], Awaitable[None]], what: str) -> None:
        await self._world.eventually(check, within_s=self._within_s, what=what)

    async def _ask(self, node: SafekeeperHandle | PageserverHandle):  # type: ignore[no-untyped-def]
        try:
            async with asyncio.timeout(ASK_S_MAX):
                return await node.timeline(self._timeline)
        except ASKING as error:
            raise NotYet(f"{node.name} does not tell: {str(error) or 'silence'}") from error

    async def _demand(self, demand: Callable[[], Awaitable[None]]) -> None:
        try:
            await demand()
        except NotLive as error:
            stuck = "\n".join(f"  {line}" for line in await self._stuck())
            raise NotLive(f"{error}\n{stuck}", checker="liveness") from error

    async def _stuck(self) -> list[str]:
        """What everything stands at, one line each."""
        stage = self._stage
        lines = [f"fault {record}" for record in self._nemesis.active()]
        for node in stage.cluster.nodes:
            lines.append(f"{node.name}: {self._life(node.name)}{await self._state(node)}")
        for endpoint in stage.cluster.endpoints.values():
            life = self._life(endpoint.name)
            if endpoint.running:
                try:
                    async with asyncio.timeout(ASK_S_MAX):
                        life += f" {dict(await endpoint.endpoint.status())}"
                except (*ASKING, HarnessError) as error:
                    life += f" does not tell: {error or 'silence'}"
            lines.append(f"{endpoint.name}: {life}")
        return lines

    def _life(self, name: str) -> str:
        if self._stage.running(name):
            return "runs"
        return f"is down ({self._stage.held_down.get(name, 'nobody wants it down')})"

    async def _state(self, node: object) -> str:
        if not isinstance(node, SafekeeperHandle | PageserverHandle) or not node.running:
            return ""
        try:
            return f" {await self._ask(node)}"
        except NotYet as error:
            return f" {error}"
