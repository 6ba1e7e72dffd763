"""A toy role that uses every port of a node process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from storage.durable import read_file, replace_file
from storage.errors import PortError
from storage.node import NodeContext, NodeMain

logger = logging.getLogger("toy")


async def user(context: NodeContext) -> None:
    """Writes its name everywhere, then again and again; logs each change of what works."""
    ports, name = context.ports, context.name
    await replace_file(ports.disk, "name", name.encode())
    assert await read_file(ports.disk, "name") == name.encode()
    state: dict[str, str] = {}
    while not context.stopping.is_set():
        for service, work in (
            ("s3", ports.objects.put(f"names/{name}", name.encode())),
            ("broker", ports.broker.publish(f"names/{name}", name.encode(), ttl_s=5)),
        ):
            try:
                await work
                outcome = "works"
            except PortError as error:
                outcome = f"fails: {type(error).__name__}"
            if state.get(service) != outcome:
                logger.info("%s %s", service, outcome)
                state[service] = outcome
        if state == {"s3": "works", "broker": "works"}:
            context.ready.set()
        await asyncio.sleep(0.02)


ROLES: Mapping[str, NodeMain] = {"user": user}
