"""A campaign: a cluster under load and a plan of faults, then a healed core that must work again.

Safety is checked all the time and at the end by the oracles of every run; liveness is demanded
twice: of the plan's core while the rest stays broken, and of everything once all is healed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path

from harness.faulting.fault import Strike
from harness.faulting.liveness import Liveness
from harness.faulting.nemesis import Nemesis
from harness.faulting.plan import Plan
from harness.faulting.process import crash
from harness.faulting.profiles import draw_plan
from harness.faulting.stage import Stage
from harness.faulting.supervisor import Supervisor
from harness.faulting.traffic import Traffic
from harness.runner import Inconclusive
from harness.transactions import workload_named
from harness.world import World

WARM_UP_COMMITS = 5
LIVE_WITHIN_S = 60.0
POSTGRES_STRETCH = 2.0


def plan_for(world: World, profile: str) -> Plan:
    """The plan of this run: that of ``--plan``, or else one drawn from the profile.

    Faults on a cluster with a PostgreSQL last longer, for it takes seconds to start.
    """
    if world.settings.plan:
        return Plan.read(Path(world.settings.plan))
    plan = draw_plan(profile, world.generator("plan"))
    return plan.stretched(POSTGRES_STRETCH) if world.settings.compute == "postgres" else plan


async def run_campaign(world: World, plan: Plan) -> Nemesis:
    """Carry a plan out in a fresh world and leave a healthy cluster; the nemesis has the records.

    Raises ``CheckFailed`` and its kin for what the system does wrong, ``Inconclusive`` if no fault
    had an effect. The error's notes hold the plan.
    """
    return await carry_out(world, plan, Campaign(world, plan))


async def carry_out(world: World, plan: Plan, campaign: Campaign) -> Nemesis:
    """Run a campaign; the plan is in the run's events, and in the notes of its error."""
    world.backend.note("plan", {"json": json.dumps(plan.to_json())})
    try:
        return await campaign.run()
    except Exception as error:
        error.add_note(str(plan))
        raise


class Campaign:
    """One run of a plan."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self.plan = plan

    async def run(self) -> Nemesis:
        """The whole campaign; see :func:`run_campaign`."""
        world, plan = self._world, self.plan
        world.expect_log(
            r"crashed: Deposed|Deposed: term|was deposed", reason="a primary that was replaced ends"
        )
        cluster = await world.start(plan.topology)
        endpoint = await cluster.endpoint(plan.cast().compute)
        work = workload_named(plan.workload, clients=plan.clients, think_s=plan.think_s)
        traffic = Traffic(world, endpoint, work)
        stage = Stage(world, cluster, traffic)
        nemesis = Nemesis(stage, plan)
        traffic.start()
        await traffic.load.progress(WARM_UP_COMMITS)
        await _beside(self._phases(stage, nemesis), Supervisor(stage).run(), stage.control.run())
        await traffic.stop()
        _keep_alive(stage)
        await self._retire(stage)
        _judge_effects(nemesis)
        return nemesis

    async def _phases(self, stage: Stage, nemesis: Nemesis) -> None:
        world = self._world
        before = world.history.commits()
        await nemesis.run()
        world.backend.note("campaign", {"commits": world.history.commits() - before})
        await self._recover(stage, nemesis)

    async def _recover(self, stage: Stage, nemesis: Nemesis) -> None:
        plan = self.plan
        liveness = Liveness(stage, nemesis, LIVE_WITHIN_S)
        core = self._core(stage)
        await nemesis.heal(core)
        rest = tuple(name for name in plan.cast().storage if name not in core)
        undo = await crash(stage, Strike(rest), host=True) if plan.kill_rest else None
        await liveness.commits_flow()
        await liveness.pageserver_follows()
        await nemesis.heal()
        if undo is not None:
            await undo()
        await liveness.tenant_is_home()
        await liveness.commits_flow()
        await liveness.pageserver_follows()
        await liveness.safekeepers_agree(plan.cast().safekeepers)
        await liveness.commits_are_prompt()
        await liveness.upload_works()

    def _core(self, stage: Stage) -> tuple[str, ...]:
        """The plan's core as far as its copies are intact, a majority; the tenant's home; S3."""
        cast = self.plan.cast()
        wanted = [name for name in self.plan.core if name in cast.safekeepers]
        wanted += [name for name in cast.safekeepers if name not in wanted]
        intact = [name for name in wanted if name not in stage.lost]
        majority = len(cast.safekeepers) // 2 + 1
        assert len(intact) >= majority, f"the plan left only {intact} intact"
        return (*intact[:majority], stage.control.home.name, cast.compute)

    async def _retire(self, stage: Stage) -> None:
        """Take members without the timeline out of service: oracles compare the others."""
        for name in stage.lost:
            if stage.running(name):
                await stage.handle(name).stop()


def _keep_alive(stage: Stage) -> None:
    """What TCP's keep-alive does hours later: connections whose other end is long gone break.

    A machine that died in silence never says so, and its peers wait for it until then.
    """
    names = [node.name for node in stage.cluster.nodes]
    names += [node.name for each in stage.cluster.endpoints.values() for node in each.nodes]
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            stage.backend.network.reset(name, other)


def _judge_effects(nemesis: Nemesis) -> None:
    """``Inconclusive`` for a plan of which nothing came about."""
    if nemesis.records and not any(record.effect for record in nemesis.records):
        fates = "\n".join(f"  {record}" for record in nemesis.records)
        raise Inconclusive(f"no fault of the plan had an effect:\n{fates}")


async def _beside(work: Awaitable[None], *watches: Awaitable[None]) -> None:
    """Run ``work`` beside what never ends by itself; an error of any ends all."""
    tasks = [asyncio.ensure_future(each) for each in (work, *watches)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
