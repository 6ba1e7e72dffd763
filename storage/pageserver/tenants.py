"""Every tenant attached here, and the transitions of their lives, one at a time for each tenant.

The list of attached tenants is durable before a request is answered; a transition once begun ends
even if its requester goes away; who comes second waits and sees the final state (BUGBANK
``duplicate-delete-or-request-race``, ``shutdown-does-not-join-detach``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from storage.errors import Conflict, CorruptData, NotFound, NotReady, PortError, RequestError
from storage.events import emit
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantId, is_id
from storage.marks import Mark, reach
from storage.pageserver import attached
from storage.pageserver.backoff import Backoff
from storage.pageserver.environment import Environment
from storage.pageserver.layer_files import TENANTS
from storage.pageserver.remote import RemoteTenant
from storage.pageserver.secondary import Warmed, warm_up
from storage.pageserver.states import State
from storage.pageserver.tenant import Tenant
from storage.ports import Disk
from storage.tasks import TaskKind, interruptible

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Tenants:
    """The tenants of one pageserver incarnation."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._tenants: dict[TenantId, Tenant] = {}
        self._generations: dict[TenantId, int] = {}
        self._locks: dict[TenantId, asyncio.Lock] = {}
        self._warming: dict[TenantId, asyncio.Lock] = {}
        self._saving = asyncio.Lock()
        self._stopping = False

    @property
    def disk(self) -> Disk:
        """The node's disk."""
        return self._environment.ports.disk

    # Looking.

    def all(self) -> list[Tenant]:
        """Every tenant here, in whatever state."""
        return list(self._tenants.values())

    def get(self, tenant_id: TenantId) -> Tenant:
        """A tenant here; ``NotFound`` otherwise."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            raise NotFound(f"tenant {tenant_id} is not attached to {self._environment.node}")
        return tenant

    # Transitions.

    def lock(self, tenant_id: TenantId) -> asyncio.Lock:
        """Serialises the transitions of one tenant."""
        return self._locks.setdefault(tenant_id, asyncio.Lock())

    async def load_attached(self) -> None:
        """At start: begin to attach what was attached before; returns before they are active."""
        known = await attached.load(self.disk)
        self._generations = known or {}
        await self.disk.mkdir(TENANTS)
        names = await self.disk.listdir(TENANTS)
        if known is None and names:
            raise CorruptData(f"{TENANTS} has {len(names)} entries but {attached.PATH} is missing")
        await self._remove_detached(names)
        for tenant_id in self._generations:
            tenant = self._add(tenant_id)
            self._spawn_attach(tenant, partial(self._resume, tenant))

    async def _remove_detached(self, names: list[str]) -> None:
        """Remove what a detach left behind; anything else is not ours to remove."""
        for name in names:
            if not is_id(name):
                logger.info("leaving %s/%s alone: it is no tenant", TENANTS, name)
            elif name not in self._generations:
                reach(Mark.DETACHED_LEFTOVER)
                logger.info("removing %s/%s: the tenant is not attached", TENANTS, name)
                await self.disk.rmtree(f"{TENANTS}/{name}")

    async def create(self, tenant_id: TenantId) -> Tenant:
        """Make a new, empty tenant, attached here; ``Conflict`` if it exists."""
        tenant = await self.to_the_end(f"create {tenant_id}", lambda: self._create(tenant_id))
        await self._wait_attached(tenant)
        return tenant

    async def _create(self, tenant_id: TenantId) -> Tenant:
        async with self.lock(tenant_id):
            self._check_running()
            if tenant_id in self._tenants:
                raise Conflict(f"tenant {tenant_id} is attached here already")
            remote = self._remote(tenant_id)
            generation = await self.bounded(
                f"creating tenant {tenant_id}", remote.create(self._environment.node)
            )
            await self._save(tenant_id, generation)
            tenant = self._add(tenant_id)
            self._spawn_attach(tenant, lambda: tenant.load(generation, superseded=False))
            return tenant

    async def attach(self, tenant_id: TenantId) -> Tenant:
        """Attach a tenant, or join its attachment; returns once accepted, perhaps not yet active.

        ``NotFound`` when the object store answers in time that there is no such tenant.
        """
        tenant = await self.to_the_end(f"attach {tenant_id}", lambda: self._attach(tenant_id))
        await self._wait_attached(tenant)
        return tenant

    async def _wait_attached(self, tenant: Tenant) -> None:
        """Give an attachment a little time, so that most requests answer with its outcome."""
        try:
            async with asyncio.timeout(self._environment.options.attach_answer_timeout_s):
                await tenant.state.wait_active()
        except TimeoutError:
            return
        except RequestError:
            if tenant.missing is not None:
                await self.to_the_end(f"undo {tenant.tenant_id}", lambda: self._detach(tenant))
                raise tenant.missing from None
            raise

    async def _attach(self, tenant_id: TenantId) -> Tenant:
        async with self.lock(tenant_id):
            self._check_running()
            tenant = self._tenants.get(tenant_id)
            if tenant is None:
                await self._save(tenant_id, 0)
                await failpoint(Failpoint.PS_ATTACH_NOTED)
                tenant = self._add(tenant_id)
                # From here on no warm copy begins; one that runs would meet our own files.
                await self._environment.registry.shutdown(
                    kind=TaskKind.SECONDARY, tenant_id=tenant_id, within_s=1.0
                )
                self._spawn_attach(tenant, lambda: self._resume(tenant))
            return tenant

    async def warm(self, tenant_id: TenantId) -> Warmed:
        """Download what an attachment would have to; ``Conflict`` if it is attached here.

        Nothing is claimed, so the pageserver that has the tenant does not notice. Asking again
        downloads only what is new; an attachment that begins meanwhile ends it with ``NotReady``.
        """
        self._check_running()
        outcome: asyncio.Future[Warmed] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                if tenant_id in self._tenants:
                    raise Conflict(f"tenant {tenant_id} is attached here already")
                # A disk with files of tenants and without the list would not be believed.
                async with self._saving:
                    await attached.save(self.disk, self._generations)
                outcome.set_result(
                    await warm_up(self._environment, tenant_id, self._remote(tenant_id))
                )
            except (RequestError, PortError) as error:
                outcome.set_exception(error)
                outcome.exception()  # Retrieved here: perhaps the requester is gone.
            finally:
                outcome.cancel()  # No effect unless this task was cancelled.

        async with self._warming.setdefault(tenant_id, asyncio.Lock()):
            self._environment.registry.spawn(
                TaskKind.SECONDARY, f"warm {tenant_id}", run(), tenant_id=tenant_id
            )
            return await asyncio.shield(outcome)

    async def detach(self, tenant_id: TenantId) -> None:
        """Stop serving a tenant and forget it here; the object store keeps it.

        ``NotFound`` if it is not attached; a detach under way is joined.
        """
        tenant = self.get(tenant_id)
        await self.to_the_end(f"detach {tenant_id}", lambda: self._detach(tenant))

    async def _detach(self, tenant: Tenant) -> None:
        tenant_id = tenant.tenant_id
        async with self.lock(tenant_id):
            while tenant.successor is not None:
                tenant = tenant.successor
            if self._tenants.get(tenant_id) is not tenant:
                return
            await tenant.stop(flush_within_s=self._environment.options.detach_flush_timeout_s)
            await failpoint(Failpoint.PS_DETACH_STOPPED)
            await self._save(tenant_id, None)
            await failpoint(Failpoint.PS_DETACH_NOTED)
            await tenant.remove_files()
            del self._tenants[tenant_id]

    async def stop(self) -> None:
        """At the node's stop: end every tenant, joining what is under way."""
        self._stopping = True
        await asyncio.gather(*(self._stop_one(tenant) for tenant in self.all()))

    async def _stop_one(self, tenant: Tenant) -> None:
        async with self.lock(tenant.tenant_id):
            await tenant.stop(flush_within_s=self._environment.options.stop_flush_timeout_s)

    # Attaching in the background.

    def _add(self, tenant_id: TenantId) -> Tenant:
        self._check_running()
        assert tenant_id not in self._tenants, f"tenant {tenant_id} is here already"
        tenant = self._tenants[tenant_id] = Tenant(self._environment, tenant_id)
        tenant.on_spoilt = lambda: self._begin_anew(tenant)
        emit("tenant_state", tenant=tenant_id, state=str(tenant.state.state))
        return tenant

    def _spawn_attach(self, tenant: Tenant, work: Callable[[], Awaitable[None]]) -> None:
        self._environment.registry.spawn(
            TaskKind.ATTACH,
            str(tenant.tenant_id),
            self._attach_persistently(tenant, work),
            tenant_id=tenant.tenant_id,
        )

    async def _attach_persistently(
        self, tenant: Tenant, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Repeat the whole attachment until it works or cannot work (BUGBANK
        ``index-download-error-as-absent``)."""
        backoff = Backoff(self._environment.ports.entropy)
        async with interruptible():
            while True:
                try:
                    await work()
                    return
                except PortError as error:
                    reach(Mark.ATTACH_REPEATED)
                    logger.info("attaching tenant %s: %s", tenant.tenant_id, error)
                except CorruptData as error:
                    tenant.set_state(State.BROKEN, str(error))
                    raise
                except NotFound as error:
                    await self._give_up(tenant, error)
                    return
                await asyncio.sleep(backoff.next_delay_s())

    async def _give_up(self, tenant: Tenant, error: NotFound) -> None:
        """There is no such tenant: a new attachment is undone, an old one shows it broken."""
        logger.info("attaching tenant %s: %s", tenant.tenant_id, error)
        reach(Mark.ATTACH_UNDONE)
        is_new = not self._generations.get(tenant.tenant_id)
        tenant.missing = error if is_new else None
        tenant.set_state(State.BROKEN, str(error))
        if is_new:
            await self._detach(tenant)

    async def _resume(self, tenant: Tenant) -> None:
        """Begin an attachment, or go on with it after a restart, damage, or a failure: what was
        ours once is only renewed while it is still ours; if it is not, we only serve."""
        node, before = self._environment.node, self._generations[tenant.tenant_id]
        if before:
            generation = await tenant.remote.renew_generation(node)
        else:
            generation = await tenant.remote.claim_generation(node)
        if generation is None:
            reach(Mark.RESUMED_SUPERSEDED)
            logger.info("tenant %s was attached elsewhere since", tenant.tenant_id)
            await tenant.load(before, superseded=True)
            return
        await self._save(tenant.tenant_id, generation)
        await failpoint(Failpoint.PS_ATTACH_CLAIMED)
        await tenant.load(generation, superseded=False)

    def _begin_anew(self, tenant: Tenant) -> None:
        """What a tenant has in layers that the object store lacks is spoilt."""
        name = f"attach {tenant.tenant_id} anew"
        self._environment.registry.spawn(TaskKind.ATTACH, name, self._attach_anew(tenant))

    async def _attach_anew(self, tenant: Tenant) -> None:
        """Go back to what the object store has; safekeepers still have the WAL that followed."""
        async with self.lock(tenant.tenant_id):
            if self._tenants.get(tenant.tenant_id) is not tenant or self._stopping:
                return
            await tenant.stop(flush_within_s=0.0)
            if not self._stopping:
                reach(Mark.ATTACHED_ANEW)
                del self._tenants[tenant.tenant_id]
                fresh = tenant.successor = self._add(tenant.tenant_id)
                self._spawn_attach(fresh, lambda: self._resume(fresh))

    # The pieces.

    def _check_running(self) -> None:
        if self._stopping:
            raise NotReady(f"{self._environment.node} is stopping")

    async def _save(self, tenant_id: TenantId, generation: int | None) -> None:
        """Record an attachment (``None``: detached) durably."""
        async with self._saving:
            changed = dict(self._generations)
            if generation is None:
                changed.pop(tenant_id, None)
            else:
                changed[tenant_id] = generation
            await attached.save(self._environment.ports.disk, changed)
            self._generations = changed

    def _remote(self, tenant_id: TenantId) -> RemoteTenant:
        ports = self._environment.ports
        return RemoteTenant(tenant_id, ports.objects, self._environment.options, ports.entropy)

    async def bounded(self, what: str, work: Awaitable[T]) -> T:
        """Await something of the object store for a request; ``NotReady`` when it takes long."""
        timeout_s = self._environment.options.attach_answer_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except TimeoutError as error:
            raise NotReady(f"{what}: the object store did not answer in {timeout_s} s") from error

    async def to_the_end(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Run a transition as a task of its own, which the requester's end does not end."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                outcome.set_result(await work())
            except Exception as error:
                outcome.set_exception(error)
                outcome.exception()  # Retrieved here: perhaps the requester is gone.
            finally:
                outcome.cancel()  # No effect unless this task was cancelled.

        self._environment.registry.spawn(TaskKind.ATTACH, name, run())
        return await asyncio.shield(outcome)
