"""Bugs of the state a compute starts from."""

from __future__ import annotations

import asyncio
import random

from harness.bug import Bug, Replacement
from storage.compute import basebackup
from storage.compute.basebackup import BaseState, read_signal
from storage.compute.options import PageServiceOptions, host_and_port
from storage.compute.page_client import PageClient
from storage.errors import ProtocolError
from storage.lsn import Lsn
from storage.wire.client import ConnectOptions, connect
from storage.wire.errors import ServerError


async def _take_what_is_there(
    pages: PageClient, options: PageServiceOptions, lsn: Lsn, entropy: random.Random
) -> BaseState:
    """The state the pageserver has now, not the one the election ended at."""
    host, port = host_and_port(pages.address)
    while True:
        try:
            client = await connect(host, port, options=ConnectOptions(timeout_s=5.0))
            try:
                chunks = client.copy_out(f"basebackup {' '.join(options.timeline)}")
                return read_signal(b"".join([chunk async for chunk in chunks]), lsn)
            finally:
                await client.close()
        except (OSError, EOFError, ProtocolError, ServerError):
            await asyncio.sleep(0.1 + 0.1 * entropy.random())


def _any_base_will_do(base: BaseState, start_lsn: Lsn) -> None:
    return


BUGS = (
    Bug(
        "wp-basebackup-lsn-mismatch", "basebackup", "hard", ("O1", "O6"),
        "neon issue #594, #1737; neondatabase/postgres PR #156; 595a6bc1e1 = #1835",
        replacements=(
            Replacement(basebackup, "fetch_base", _take_what_is_there),
            Replacement(basebackup, "check_base", _any_base_will_do),
        ),
        applies="a compute starts while its pageserver lacks WAL; computes here take their base "
        "after the election, so its LSN is forgotten along with the comparison",
    ),
)  # fmt: skip
