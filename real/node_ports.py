"""The ports of a node process: files, S3 and etcd behind this node's own links, the system clock.

``settings`` of the plan: ``s3`` and ``etcd`` hold the fields of their options.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from real import object_store
from real.broker import EtcdBroker
from real.clock import SystemClock
from real.disk import ThreadPoolDisk
from real.etcd import EtcdOptions
from real.fault_page import FaultPage
from real.faulty_disk import FaultyClock, FaultyDisk
from real.node_main import NodePlan
from real.object_store import S3ObjectStore, S3Options
from storage.ports import Ports


def preload() -> None:
    """For the fork server: what every node would otherwise read for itself."""
    object_store.preload()


@asynccontextmanager
async def node_ports(plan: NodePlan, entropy: random.Random) -> AsyncIterator[Ports]:
    """Open the ports of one incarnation, and close them when its main has ended."""
    disk = ThreadPoolDisk(Path(plan.directory) / "disk", f"{plan.name}-disk")
    page = FaultPage(Path(plan.directory) / "faults")
    objects = S3ObjectStore(S3Options(**plan.settings["s3"]))
    broker = EtcdBroker(EtcdOptions(**plan.settings["etcd"]))
    try:
        yield Ports(
            FaultyDisk(disk, page), objects, broker, FaultyClock(SystemClock(), page), entropy
        )
    finally:
        await broker.close()
        await objects.close()
        disk.close()
