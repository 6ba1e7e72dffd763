"""The pageserver role: parses its options, starts its services, runs until asked to stop."""

from __future__ import annotations

import asyncio
import logging

from storage.errors import DiskError
from storage.http import server as http
from storage.life import run_until_stopped
from storage.node import NodeContext
from storage.pageserver.backoff import Backoff
from storage.pageserver.disk_budget import DiskBudget
from storage.pageserver.environment import Environment
from storage.pageserver.http_api import pageserver_api
from storage.pageserver.ingest import register_kv_redo
from storage.pageserver.options import PageserverOptions
from storage.pageserver.page_service import PageService
from storage.pageserver.postgres.support import PostgresSupport
from storage.pageserver.redo import RedoTable
from storage.pageserver.sized_cache import SizedCache
from storage.pageserver.tenants import Tenants
from storage.tasks import TaskKind, TaskRegistry
from storage.wire import server as wire

logger = logging.getLogger(__name__)

LIBPQ_PORT = 6400
HTTP_PORT = 9898
SESSION_STOP_S = 1.0
"""How long a session may take to end at the node's stop, in seconds."""


def make_environment(context: NodeContext) -> Environment:
    """What the parts of this incarnation share; ``BadRequest`` names a wrong option."""
    options = PageserverOptions.parse(context.options)
    redo = RedoTable()
    register_kv_redo(redo)
    postgres = PostgresSupport()
    postgres.register_redo(redo)
    return Environment(
        node=context.name,
        options=options,
        ports=context.ports,
        registry=TaskRegistry(context.name, context.die),
        redo=redo,
        postgres=postgres,
        blocks=SizedCache(options.index_cache_size),
        pages=SizedCache(options.page_cache_size),
        budget=DiskBudget(options.disk_budget),
    )


LOAD_RETRIES = 5
"""How often the list of attached tenants is read again before the node gives up."""


async def main(context: NodeContext) -> None:
    """Run a pageserver until ``context.stopping``; raises if one of its critical tasks ends."""
    environment = make_environment(context)
    registry = environment.registry
    tenants = Tenants(environment)
    await load_tenants(tenants, environment)
    registry.spawn(TaskKind.EVICTION, "disk budget", environment.budget.run(), critical=True)
    service = PageService(environment, tenants)
    pages = await wire.serve(
        context.name,
        LIBPQ_PORT,
        service.query,
        registry,
        options=wire.ServerOptions(describe=service.describe),
    )
    api = await http.serve(pageserver_api(tenants, environment), context.name, HTTP_PORT, registry)
    context.ready.set()
    logger.info("pageserver %s is ready", context.name)
    try:
        await run_until_stopped(context, registry)
    finally:
        # The API goes first: nobody may begin a transition that the stop would not see.
        await api.close(within_s=SESSION_STOP_S)
        await tenants.stop()
        await pages.close(within_s=SESSION_STOP_S)
        await registry.shutdown(within_s=SESSION_STOP_S)
    logger.info("pageserver %s stopped", context.name)


async def load_tenants(tenants: Tenants, environment: Environment) -> None:
    """Read what is attached; a disk that fails for a moment is no reason to die."""
    backoff = Backoff(environment.ports.entropy)
    while True:
        try:
            await tenants.load_attached()
            return
        except DiskError as error:
            if backoff.failures == LOAD_RETRIES:
                raise
            logger.warning("reading the attached tenants: %s; trying again", error)
            await asyncio.sleep(backoff.next_delay_s())
