"""Bugs of ending: who waits for whom, who is woken, and what runs on afterwards."""

from __future__ import annotations

import asyncio

from harness.bug import Bug, Replacement
from storage.ids import TenantTimelineId
from storage.pageserver.layer_files import tenant_directory
from storage.pageserver.states import State, StateCell
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.walreceiver import WalReceiver, _now_s
from storage.safekeeper.timelines import Timelines
from storage.tasks import TaskKind, shutdown_requested

FAMILY = "shutdown/tasks"

_stop_one = Tenants._stop_one


async def _done_when_already_stopping(self: Tenants, tenant: Tenant) -> None:
    if tenant.state.state is not State.STOPPING:
        await _stop_one(self, tenant)


async def _wait_before_looking(self: StateCell) -> None:
    await self._changed.wait()
    self.check_active()


async def _remove_some_time(self: Tenant) -> None:
    """The files go when the last reference to the old object is dropped, whenever that is."""
    environment = self.environment

    async def drop() -> None:
        await asyncio.sleep(2 * environment.ports.entropy.random())
        await environment.ports.disk.rmtree(tenant_directory(self.tenant_id))

    environment.registry.spawn(TaskKind.ATTACH, f"drop {self.tenant_id}", drop())


async def _look_at_the_flag_between_messages(self: WalReceiver) -> None:
    await self._timeline.state.wait_active()
    while not shutdown_requested():
        address = self._candidates.choose(self._timeline.last_record_lsn, _now_s())
        if address is None:
            await self._wait_for_news()
        else:
            await self._try(address)


async def _stop_nothing(self: Timelines, timeline_id: TenantTimelineId) -> None:
    return


BUGS = (
    Bug(
        "shutdown-does-not-join-detach", FAMILY, "medium", ("O11",),
        "9e871318a0 = PR #4678; issue #4429",
        replacements=(Replacement(Tenants, "_stop_one", _done_when_already_stopping),),
        applies="a pageserver is stopped during a detach",
    ),
    Bug(
        "lost-wakeup-waiting-active", FAMILY, "medium", ("O10",), "d857f63e3b = PR #11047",
        replacements=(Replacement(StateCell, "wait_active", _wait_before_looking),),
        applies="every run",
    ),
    Bug(
        "old-object-deletes-new-files", FAMILY, "hard", ("O6", "O11"),
        "b09d686335 = #7051, 8c5b310090 = #7082, 62aac6c8ad = #7838, fc78774f39 = #8229 "
        "(issue #7830)",
        replacements=(Replacement(Tenant, "remove_files", _remove_some_time),),
        applies="a detach, then an attach to the same pageserver",
    ),
    Bug(
        "receiver-stop-only-on-message", FAMILY, "easy", ("O11",),
        "c910132d4b; 6a3b9b1d46 (EOF busy loop)",
        replacements=(Replacement(WalReceiver, "run", _look_at_the_flag_between_messages),),
        applies="a stop while a stream is silent",
    ),
    Bug(
        "delete-ignores-running-handlers", FAMILY, "medium", ("O11",),
        "33dce25af8 = PR #9364 (issues #8972, #8974); 8ae6f656a6 = PR #10628",
        replacements=(Replacement(Timelines, "_stop_work", _stop_nothing),),
        applies="a timeline is deleted while it is written to",
    ),
)  # fmt: skip
