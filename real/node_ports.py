"""The ports of a node process: files, S3 and etcd behind this node's own links, the system clock.

``settings`` of the plan: ``s3`` and ``etcd`` hold the fields of their options.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from real import object_store
from real.bound_ports import BoundBroker, BoundObjectStore, Home
from real.broker import EtcdBroker
from real.clock import SystemClock
from real.disk import ThreadPoolDisk
from real.etcd import EtcdOptions
from real.fault_page import FaultPage
from real.faulty_disk import FaultyClock, FaultyDisk
from real.loop import NamedHostLoop
from real.node_main import NodePlan, handle_loop_error
from real.object_store import S3ObjectStore, S3Options
from real.runtimes import ThreadRuntimes
from storage.ports import Ports
from storage.runtimes import STOP_WITHIN_S, RuntimeEnded, RuntimeName

logger = logging.getLogger(__name__)


def preload() -> None:
    """For the fork server: what every node would otherwise read for itself."""
    object_store.preload()


@asynccontextmanager
async def node_ports(plan: NodePlan, entropy: random.Random) -> AsyncIterator[Ports]:
    """Open the ports of one incarnation, and close them when its main has ended."""
    runtimes = ThreadRuntimes(lambda: host_loop(plan))
    disk = ThreadPoolDisk(Path(plan.directory) / "disk", f"{plan.name}-disk")
    page = FaultPage(Path(plan.directory) / "faults")
    objects = BoundObjectStore(
        S3ObjectStore(S3Options(**plan.settings["s3"])), Home(runtimes, RuntimeName.BACKUP)
    )
    broker = BoundBroker(
        EtcdBroker(EtcdOptions(**plan.settings["etcd"])), Home(runtimes, RuntimeName.BROKER)
    )
    clock = FaultyClock(SystemClock(), page)
    try:
        yield Ports(FaultyDisk(disk, page), objects, broker, clock, entropy, runtimes)
    finally:
        await _finish(broker, objects, runtimes)
        disk.close()


async def _finish(broker: BoundBroker, objects: BoundObjectStore, runtimes: ThreadRuntimes) -> None:
    """Close what lives on runtimes, then the runtimes; one that is gone took its client along."""
    for close in (broker.close, objects.close):
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await close()
        except (RuntimeEnded, TimeoutError) as error:
            logger.info("a client is left open: %s", error)
    await runtimes.close()


def host_loop(plan: NodePlan) -> NamedHostLoop:
    """One more loop that is the node's host."""
    loop = NamedHostLoop()
    loop.join((plan.hub[0], plan.hub[1]), plan.name, plan.incarnation)
    loop.set_exception_handler(handle_loop_error)
    return loop
