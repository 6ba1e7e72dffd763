"""One node process, from fork to exit: the only module of this world that loads a role.

The *channel* (one end of a socket pair) carries one JSON line ``{"ready": true}`` and, when the
node ends by itself, ``{"died": reason}``; its end tells the backend that the process is gone.
Exit codes: 0 stopped as asked, 1 the main raised, 3 the main returned unasked,
4 a failpoint ended the process.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import json
import logging
import os
import random
import signal
import socket
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.backend import RETURNED_UNASKED
from harness.leftovers import report_leftovers
from real import node_log, process
from real.loop import NamedHostLoop
from storage.events import current_sink
from storage.node import NodeContext, NodeMain
from storage.ports import Ports

EVENTS_WRITE_S = 0.2
_EXIT_DIED = 4
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodePlan:
    """All a node process needs to know, as JSON data.

    ``roles`` (``"module:NAME"``) is a mapping of role to main, ``ports`` a :class:`PortsFactory`
    which gets ``settings``; ``directory`` holds ``disk/``, ``node.log``, ``events.jsonl``.
    """

    name: str
    role: str
    incarnation: int
    options: Mapping[str, Any]
    directory: str
    hub: tuple[str, int]
    roles: str
    ports: str
    settings: Mapping[str, Any]


class PortsFactory(Protocol):
    """Makes a node's ports and closes them again."""

    def __call__(
        self, plan: NodePlan, entropy: random.Random
    ) -> AbstractAsyncContextManager[Ports]:
        """Ports for one incarnation."""
        ...


def handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """As the loop's own handler, but a lost connection is life in aiohttp's request writer too."""
    if is_lost_request(context):
        logger.info("a request was cut off while it was written: %s", context["exception"])
    else:
        loop.default_exception_handler(context)


def is_lost_request(context: Mapping[str, Any]) -> bool:
    """Whether an unhandled error is a connection that aiohttp's request writer lost.

    aiohttp 3.14 drops that task when the request fails before it; nobody can await it then.
    """
    task, error = context.get("future"), context.get("exception")
    name = getattr(task.get_coro(), "__qualname__", "") if isinstance(task, asyncio.Task) else ""
    return name == "ClientRequest.write_bytes" and isinstance(error, ConnectionError)


def load(path: str) -> Any:
    """The object ``"module:NAME"`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def run(plan: NodePlan, channel: socket.socket) -> int:
    """Be the node until it ends; returns the process's exit code."""
    directory = Path(plan.directory)
    _redirect(directory / "node.log")
    process.name_thread(plan.name)
    process.set_title(f"seawall {plan.role} {plan.name}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the harness, which then stops us.
    events = node_log.EventFile(directory / "events.jsonl")
    current_sink.set(events)
    try:
        with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
            was_asked = runner.run(_node(plan, channel, events))
            if not was_asked:
                logger.error("node %s: %s", plan.name, RETURNED_UNASKED)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        logger.error("node %s crashed: %s", plan.name, what, exc_info=error)
        _say(channel, died=what)
        return 1
    finally:
        events.close()
        logging.shutdown()
    if was_asked:
        return 0
    _say(channel, died=RETURNED_UNASKED)
    return 3


def _redirect(log_path: Path) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)
    faulthandler.enable()
    node_log.start_logging()


def _say(channel: socket.socket, **message: Any) -> None:
    try:
        channel.sendall(json.dumps(message).encode() + b"\n")
    except OSError as error:
        logger.info("the backend does not listen any more: %s", error)


async def _node(plan: NodePlan, channel: socket.socket, events: node_log.EventFile) -> bool:
    """Run the role to its end; returns whether it was asked to stop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, NamedHostLoop)
    loop.join((plan.hub[0], plan.hub[1]), plan.name, plan.incarnation)
    loop.set_exception_handler(handle_loop_error)
    main: NodeMain = load(plan.roles)[plan.role]
    factory: PortsFactory = load(plan.ports)
    entropy = random.Random(f"{plan.settings.get('seed', 0)}/{plan.name}/{plan.incarnation}")

    def write_events() -> None:
        events.write()
        loop.call_later(EVENTS_WRITE_S, write_events)

    write_events()
    async with factory(plan, entropy) as ports:

        def die(reason: str) -> None:
            events.write()
            _say(channel, died=reason)
            os._exit(_EXIT_DIED)

        context = NodeContext(plan.name, ports, plan.options, die=die)
        loop.add_signal_handler(signal.SIGTERM, context.stopping.set)
        announcer = loop.create_task(_announce(context, channel), name="announce readiness")
        try:
            await main(context)
        finally:
            if context.ready.is_set():
                await announcer
            announcer.cancel()
    await report_leftovers(asyncio.all_tasks())
    return context.stopping.is_set()


async def _announce(context: NodeContext, channel: socket.socket) -> None:
    await context.ready.wait()
    _say(channel, ready=True)
