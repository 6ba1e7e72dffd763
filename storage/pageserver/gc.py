"""Garbage collection of one timeline: plan a cutoff, make it durable, apply it, remove layers.

Whatever asks for history holds the plan back (``retention.py``); what remains needed by it is
decided in ``garbage.py``. The cutoff reaches the object store before it counts, readers of an older
one are waited for, and objects are deleted by the upload queue, after the index that no longer
names them. One pass at a time for each timeline; compaction waits for the moment of removal.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from storage.errors import Conflict, NotReady, PortError, RequestError
from storage.failpoints import Failpoint, failpoint
from storage.lsn import Lsn
from storage.pageserver.garbage import garbage
from storage.pageserver.layer import Layer
from storage.pageserver.retention import Plan, Reason, RetentionOptions, horizon_of, plan_of
from storage.pageserver.timeline import Timeline
from storage.tasks import interruptible, sleep_unless_shutdown

logger = logging.getLogger(__name__)

US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class Collected:
    """What a pass did: the cutoff, what kept it from going further, layers removed and kept."""

    cutoff: Lsn
    held_by: Reason
    layers_removed: int
    layers_kept: int
    bytes_removed: int


class Collector:
    """The garbage collection of one timeline; :meth:`run` is its background worker."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._running = asyncio.Lock()

    async def run(self) -> None:
        """Collect now and then until the task is asked to stop; a period of 0 means never."""
        period_s = self._timeline.environment.options.gc_period_s
        if not period_s:
            return
        while not await sleep_unless_shutdown(self._spread(period_s)):
            try:
                async with interruptible():
                    await self.collect(self._timeline.environment.options.retention)
            except (PortError, RequestError) as error:
                logger.info("garbage collection of %s: %s", self._timeline.ident, error)

    def _spread(self, period_s: float) -> float:
        """The period, spread a little so that timelines do not collect in step."""
        return period_s * (0.8 + 0.4 * self._timeline.environment.ports.entropy.random())

    async def collect(self, options: RetentionOptions) -> Collected:
        """One pass.

        Raises ``NotReady`` while leases of a former attachment may be unknown, ``Conflict`` when
        the tenant was attached elsewhere since, and ``PortError``.
        """
        timeline = self._timeline
        timeline.state.check_active()
        self._check_allowed()
        async with self._running:
            with timeline.gate.hold():
                plan = self.plan(options)
                await failpoint(Failpoint.PS_GC_PLANNED)
                await self._make_durable(plan.cutoff)
                await failpoint(Failpoint.PS_GC_DURABLE)
                await timeline.gc_cutoff.apply()
                timeline.report_cutoff()
                removed = await self._remove()
        return Collected(
            cutoff=timeline.gc_cutoff.lsn,
            held_by=plan.held_by,
            layers_removed=len(removed),
            layers_kept=len(timeline.layers),
            bytes_removed=sum(layer.size for layer in removed),
        )

    def _check_allowed(self) -> None:
        timeline = self._timeline
        if timeline.uploader.superseded:
            raise Conflict(f"timeline {timeline.ident} was attached elsewhere since")
        now_s = asyncio.get_running_loop().time()
        if timeline.leases.may_be_incomplete(now_s):
            raise NotReady(
                f"timeline {timeline.ident} was loaded lately: leases from before may be unknown "
                f"for another {timeline.leases.settled_at_s - now_s:.1f} s"
            )

    def plan(self, options: RetentionOptions) -> Plan:
        """Choose a cutoff and plan it; in one step with looking at what holds it back."""
        timeline = self._timeline
        timeline.note_time()
        plan = plan_of(self.limits(options))
        if plan.cutoff > timeline.gc_cutoff.planned:
            timeline.gc_cutoff.plan(plan.cutoff)
        return plan

    def limits(self, options: RetentionOptions) -> dict[Reason, Lsn | None]:
        """Up to where each reason needs nothing; a reason that does not apply is left out."""
        timeline = self._timeline
        limits: dict[Reason, Lsn | None] = {
            # What is not in the object store may have to be ingested again, at any LSN.
            Reason.REMOTE: timeline.remote_consistent.value,
            Reason.HORIZON: horizon_of(timeline.last_record_lsn, options),
            Reason.PITR: self._pitr_limit(options),
        }
        now_s = asyncio.get_running_loop().time()
        lease = timeline.leases.oldest(now_s)
        if lease is not None:
            limits[Reason.LEASE] = lease
        self._add_standbys(limits, now_s)
        return limits

    def _add_standbys(self, limits: dict[Reason, Lsn | None], now_s: float) -> None:
        """What hot standbys read; while it is not known, nothing may go."""
        standbys = self._timeline.standbys
        horizon = standbys.horizon(now_s)
        if not standbys.is_known(now_s):
            limits[Reason.STANDBY] = None
        elif horizon is not None:
            limits[Reason.STANDBY] = horizon

    def _pitr_limit(self, options: RetentionOptions) -> Lsn | None:
        """Up to where all is older than the interval, as far as is known."""
        wall_us = self._timeline.environment.ports.clock.wall_us()
        return self._timeline.times.older_than(wall_us - round(options.pitr_interval_s * US_PER_S))

    async def _make_durable(self, cutoff: Lsn) -> None:
        """Return once the object store has an index with the planned cutoff."""
        timeline = self._timeline
        planned = timeline.gc_cutoff.planned
        assert planned >= cutoff, f"{cutoff} was not planned"
        if timeline.durable_cutoff.value < planned:
            timeline.uploader.put_index(timeline.index())
        await timeline.durable_cutoff.wait_for(planned)

    async def _remove(self) -> list[Layer]:
        """Take what nobody needs out of the layer map, then from disk and object store."""
        timeline = self._timeline
        async with timeline.layers_changing:
            removed = garbage(
                timeline.layers,
                timeline.gc_cutoff.lsn,
                list(timeline.branch_points.lsns().values()),
            )
            if removed:
                timeline.replace_layers(remove=removed, add=[])
        await failpoint(Failpoint.PS_GC_REPLACED)
        for layer in removed:
            await timeline.files.remove(layer)
        return removed
