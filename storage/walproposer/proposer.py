"""The proposer's shell: connections, time and chance around the pure :class:`Campaign`.

A campaign that cannot win is replaced by one for a higher term after a jittered pause; once a
quorum has voted, losing is final (:class:`Deposed`), because a newer proposer rules. Safekeepers
that come late, come back or lag are pulled in for as long as this proposer leads.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from storage.consensus.fetch import Donor, fetch_bytes, fetch_wal
from storage.consensus.messages import AcceptorMessage
from storage.errors import ProtocolError
from storage.events import emit
from storage.log import one_line
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.tasks import ShutdownRequested, TaskKind, TaskRegistry
from storage.walproposer.campaign import (
    Committed,
    Effect,
    Established,
    Lost,
    Phase,
    Recover,
    Send,
    Superseded,
    Won,
)
from storage.walproposer.link import EXPECTED_FAILURES, SafekeeperLink
from storage.walproposer.options import PROPOSER, Deposed, Elected, ProposerClosed, ProposerOptions
from storage.walproposer.state import Campaign

__all__ = ["Deposed", "Elected", "ProposerClosed", "ProposerOptions", "WalProposer"]

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)


class WalProposer:
    """Makes WAL durable on a quorum of safekeepers, as the only writer of its timeline."""

    def __init__(
        self, options: ProposerOptions, registry: TaskRegistry, entropy: random.Random
    ) -> None:
        self.options = options
        self.registry = registry
        self.entropy = entropy
        self.campaign = Campaign(options.campaign(0))
        self._links: dict[str, SafekeeperLink] = {}
        self._lost: Lost | None = None
        self._changed = asyncio.Event()
        self._failure: Deposed | ProposerClosed | None = None
        self._progress = (0, 0)
        self._progress_at = 0.0
        self._ticker: asyncio.Task[None] | None = None
        self._announcement: asyncio.TimerHandle | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._waiters: list[tuple[Lsn, int, asyncio.Future[None]]] = []
        self._waits = 0
        self._pump_due = False
        self._on_commit: list[Callable[[Lsn], object]] = []
        self._on_deposed: list[Callable[[Deposed], object]] = []

    # ---- for the compute

    @property
    def commit_lsn(self) -> Lsn:
        """Everything before it is durable on a quorum, by this proposer's own term."""
        return self.campaign.commit_lsn

    @property
    def flush_lsn(self) -> Lsn:
        """End of the WAL handed over so far, durable or not; 0 before the election."""
        return self.campaign.log.end_lsn

    @property
    def remote_consistent_lsn(self) -> Lsn:
        """What a pageserver has uploaded, as safekeepers tell; 0 while unknown."""
        return self.campaign.remote_consistent_lsn

    @property
    def phase(self) -> Phase:
        """Where the present campaign stands."""
        return self.campaign.phase

    @property
    def deposed(self) -> bool:
        """Whether a higher term took over after this proposer had won a quorum's votes."""
        return isinstance(self._failure, Deposed)

    def on_commit(self, callback: Callable[[Lsn], object]) -> None:
        """Call back, synchronously, whenever ``commit_lsn`` grew."""
        self._on_commit.append(callback)

    def on_deposed(self, callback: Callable[[Deposed], object]) -> None:
        """Call back, synchronously and once, when a higher term has taken over."""
        self._on_deposed.append(callback)

    def name_pageserver(self, pageserver: str | None) -> None:
        """From the next connections on, ask safekeepers to call this one (``host:port``)."""
        self.options = replace(self.options, pageserver=pageserver)

    async def read_back(self, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """WAL of this log from a safekeeper that has it; ``ProtocolError`` while none is there."""
        holder = self.campaign.holder_of(end_lsn)
        if holder is None:
            raise ProtocolError(f"no safekeeper with WAL up to {end_lsn} is connected")
        return b"".join([d async for d in fetch_bytes(self.donor(holder), begin_lsn, end_lsn)])

    async def elect(self) -> Elected:
        """Campaign until a term is won and every recovered byte is committed by a quorum.

        Raises ``Deposed`` when a newer proposer takes over after a quorum voted for this one, and
        ``ProposerClosed``. Call once.
        """
        assert self._ticker is None, "a proposer is elected once"
        self._ticker = self._spawn("ticker", self._tick())
        losses = 0
        self._start_links()
        while True:
            self._changed.clear()
            if self._failure is not None:
                raise self._failure
            if self._lost is not None:
                await self._next_campaign(self._lost, losses)
                losses += 1
            elif self.campaign.established:
                return Elected(self.campaign.term, self.campaign.start_lsn)
            else:
                await self._changed.wait()

    def append(self, begin_lsn: Lsn, data: bytes) -> None:
        """Propose WAL: whole records that follow what was appended before.

        Raises ``Deposed`` or ``ProposerClosed`` once nothing can be committed any more.
        """
        if self._failure is not None:
            raise self._failure
        self.campaign.append(begin_lsn, data)
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Once per turn of the loop, so that what was appended in one turn travels together."""
        self._pump_due = False
        for link in self._links.values():
            link.pump()

    async def wait_committed(self, lsn: Lsn) -> None:
        """Return once ``commit_lsn`` is ``lsn`` or more; raises ``Deposed``, ``ProposerClosed``."""
        if self._failure is not None:
            raise self._failure
        if lsn <= self.campaign.commit_lsn:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits += 1
        heapq.heappush(self._waiters, (lsn, self._waits, waiter))
        await waiter

    async def close(self) -> None:
        """Hang up on everybody; waiters get ``ProposerClosed``. Closing twice is harmless.

        Who has not heard of the last commit is told first: after an orderly stop nobody else would.
        """
        self._announce_to_those_below(self.campaign.commit_lsn)
        self._fail(ProposerClosed("the proposer is closed"))
        await self._stop_links()
        if self._ticker is not None:
            self._ticker.cancel()

    # ---- for the links

    def link_opened(self, name: str) -> None:
        """A fresh connection to a safekeeper stands."""
        self._carry_out(self.campaign.connected(name))

    def link_heard(self, name: str, message: AcceptorMessage) -> None:
        """A safekeeper's message arrived; ``ProtocolError`` if it may not."""
        self._carry_out(self.campaign.step(name, message))
        self._links[name].pump()

    def donor(self, name: str) -> Donor:
        """How to read WAL back from a safekeeper in the present term."""
        options = self.options
        return Donor(
            address=name,
            tenant_id=options.tenant_id,
            timeline_id=options.timeline_id,
            reader=PROPOSER,
            term=self.campaign.term,
            system_id=options.system_id,
            pg_version=options.pg_version,
            wal_segment_size=options.wal_segment_size,
            silence_max_s=options.peer_silence_max_s,
        )

    # ---- campaigns

    def _start_links(self) -> None:
        self._links = {name: SafekeeperLink(self, name) for name in self.options.safekeepers}
        for link in self._links.values():
            link.start()

    async def _stop_links(self) -> None:
        links, self._links = self._links, {}
        if self._announcement is not None:
            self._announcement.cancel()
            self._announcement = None
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        for link in links.values():
            link.stop()
        for link in links.values():
            await link.wait_stopped()

    async def _next_campaign(self, lost: Lost, losses: int) -> None:
        reach(Mark.CAMPAIGN_LOST)
        logger.info("campaign for term %s lost: %s", self.campaign.term, lost.reason)
        await self._stop_links()
        options = self.options
        pause_s = min(options.reconnect_min_s * 2**losses, options.reconnect_max_s)
        await asyncio.sleep(pause_s * self.entropy.uniform(0.5, 1.5))
        if self._failure is None:
            self._lost = None
            self.campaign = Campaign(options.campaign(lost.term))
            self._start_links()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Committed(lsn):
                    self._committed(lsn)
                case Send(peer, message):
                    self._links[peer].post(message)
                case Recover():
                    self._recovery = self._spawn("recovery", self._recover(self.campaign, effect))
                case Established():
                    self._changed.set()
                case Won(term, start_lsn):
                    self._won(term, start_lsn)
                case Lost():
                    self._lost = effect
                    self._changed.set()
                case Superseded(term):
                    self._depose(term)

    def _won(self, term: int, start_lsn: Lsn) -> None:
        ids = {"tenant": self.options.tenant_id, "timeline": self.options.timeline_id}
        emit("elected", **ids, term=term, proposer=self.options.proposer_id)
        logger.info("elected in term %s, new WAL begins at %s", term, start_lsn)

    async def _recover(self, campaign: Campaign, wanted: Recover) -> None:
        """Fetch the donor's tail; anything short of all of it loses the campaign."""
        logger.info("recovering %s..%s from %s", wanted.begin_lsn, wanted.end_lsn, wanted.donor)
        try:
            source = self.donor(wanted.donor)
            pieces = [p async for p in fetch_wal(source, wanted.begin_lsn, wanted.end_lsn)]
            if campaign is self.campaign and not campaign.ended:
                reach(Mark.RECOVERED_FROM_DONOR)
                self._carry_out(campaign.recovered(pieces))
        except ShutdownRequested:
            return
        except EXPECTED_FAILURES as error:
            reach(Mark.DONOR_FAILED)
            self._give_up(campaign, f"recovery from {wanted.donor} failed: {one_line(error)}")

    def _give_up(self, campaign: Campaign, reason: str) -> None:
        if campaign is self.campaign and self._failure is None and not campaign.ended:
            self._carry_out(campaign.give_up(reason))

    def _depose(self, term: int) -> None:
        if self._failure is not None:
            return
        reach(Mark.DEPOSED)
        deposed = Deposed(f"term {self.campaign.term} is over: a safekeeper has seen term {term}")
        logger.info("%s", deposed)
        self._fail(deposed)
        for link in self._links.values():
            link.stop()
        for callback in self._on_deposed:
            callback(deposed)

    def _fail(self, failure: Deposed | ProposerClosed) -> None:
        if self._failure is None:
            self._failure = failure
        self._changed.set()
        waiters, self._waiters = self._waiters, []
        for _, _, waiter in sorted(waiters, key=lambda entry: entry[:2]):
            if not waiter.done():
                waiter.set_exception(self._failure)

    # ---- time

    def _committed(self, lsn: Lsn) -> None:
        waiters = self._waiters
        while waiters and waiters[0][0] <= lsn:
            waiter = heapq.heappop(waiters)[2]
            if not waiter.done():
                waiter.set_result(None)
        for callback in self._on_commit:
            callback(lsn)
        if self._announcement is None:
            self._announce_later(lsn)

    def _announce_later(self, lsn: Lsn) -> None:
        self._announcement = asyncio.get_running_loop().call_later(
            self.options.commit_announce_delay_s, self._announce, lsn
        )

    def _announce(self, lsn: Lsn) -> None:
        """Tell ``lsn`` to those who have not heard of it by way of newer WAL."""
        self._announcement = None
        self._announce_to_those_below(lsn)
        if self.campaign.commit_lsn > lsn:
            # A commit that came while this one waited; none may follow to carry it along.
            self._announce_later(self.campaign.commit_lsn)

    def _announce_to_those_below(self, lsn: Lsn) -> None:
        for name, link in self._links.items():
            if self.campaign.peers[name].announced_lsn < lsn:
                link.announce()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.options.heartbeat_s)
            for link in self._links.values():
                link.tick()
            self._check_standstill()

    def _check_standstill(self) -> None:
        """A term that was asked for but leads nowhere is given up for a higher one.

        For example: who needs old WAL can only get it from a donor that has died.
        """
        campaign = self.campaign
        if campaign.established or campaign.ended or campaign.phase is Phase.GATHERING:
            return
        now = asyncio.get_running_loop().time()
        if self._progress != (campaign.term, campaign.progress):
            self._progress = (campaign.term, campaign.progress)
            self._progress_at = now
        elif now - self._progress_at > self.options.standstill_max_s:
            reach(Mark.STANDSTILL)
            self._give_up(campaign, f"no progress for {self.options.standstill_max_s} s")

    def _spawn(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.registry.spawn(
            TaskKind.PROPOSER,
            what,
            work,
            tenant_id=self.options.tenant_id,
            timeline_id=self.options.timeline_id,
        )
