"""What a primary needs from the pageserver before its first record: the state at its start.

``basebackup TENANT TIMELINE LSN`` answers with a tar that holds a signal file saying at which LSN
the state was taken and where the last record before it starts (the next one's ``xl_prev``). The
pageserver waits until it has ingested the LSN, so a compute never starts from less than the
election promised.
Source: Neon's ``zenith.signal`` ("PREV LSN: 0/16B3740", or "none" on an empty timeline).
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.compute.options import PageServiceOptions, host_and_port
from storage.compute.page_client import PageClient
from storage.errors import CorruptData, NotReady, ProtocolError, SeawallError
from storage.lsn import INVALID_LSN, Lsn
from storage.wire.client import ConnectOptions, connect
from storage.wire.errors import ServerError

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

ATTEMPT_TIMEOUT_S = 20.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
_LSN_LINE = re.compile(r"^LSN: ([0-9A-F]+/[0-9A-F]+)$", re.MULTILINE)
_PREV_LINE = re.compile(r"^PREV LSN: ([0-9A-F]+/[0-9A-F]+|none|invalid)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BaseState:
    """Where the state was taken, and where the last record before it starts (0: there is none)."""

    lsn: Lsn
    prev_lsn: Lsn


async def fetch_base(
    pages: PageClient, options: PageServiceOptions, lsn: Lsn | None, entropy: random.Random
) -> BaseState:
    """The state at ``lsn`` (``None``: the newest there is), from whichever pageserver ``pages``
    reads from; retried for ever.

    Raises ``SeawallError`` when the pageserver says that it can never answer.
    """
    delay_s = RETRY_FIRST_S
    while True:
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                tar = await _download(pages.address, options, lsn)
                return read_signal(tar, INVALID_LSN if lsn is None else lsn)
        except ServerError as error:
            if lsn is not None and error.sqlstate.startswith("22"):
                raise
            logger.info("no base at %s from %s yet: %s", lsn, pages.address, error)
        except (OSError, EOFError, ProtocolError) as error:
            reason = str(error) or type(error).__name__
            logger.info("no base at %s from %s yet: %s", lsn, pages.address, reason)
        await asyncio.sleep(delay_s * (0.5 + 0.5 * entropy.random()))
        delay_s = min(2 * delay_s, RETRY_MAX_S)


async def fetch_blocks(pages: PageClient, lsn: Lsn, entropy: random.Random) -> int:
    """Length of the relation at ``lsn`` in blocks; a pageserver that cannot tell, even because
    what it has is damaged, may be repaired or replaced. Raises ``LsnOutOfScope``."""
    delay_s = RETRY_FIRST_S
    while True:
        try:
            return await pages.blocks(lsn, lsn)
        except (NotReady, CorruptData, ProtocolError) as error:
            logger.info("no size at %s from %s yet: %s", lsn, pages.address, error)
        await asyncio.sleep(delay_s * (0.5 + 0.5 * entropy.random()))
        delay_s = min(2 * delay_s, RETRY_MAX_S)


async def _download(address: str, options: PageServiceOptions, lsn: Lsn | None) -> bytes:
    host, port = host_and_port(address)
    client = await connect(host, port, options=ConnectOptions(timeout_s=ATTEMPT_TIMEOUT_S))
    try:
        tenant_id, timeline_id = options.timeline
        chunks = client.copy_out(f"basebackup {tenant_id} {timeline_id} {lsn or ''}")
        return b"".join([chunk async for chunk in chunks])
    finally:
        await client.close()


def read_signal(tar: bytes, lsn: Lsn) -> BaseState:
    """The base state that a basebackup describes; ``CorruptData`` if it describes none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".signal") else None
                if file is not None:
                    return _parse_signal(file.read().decode("ascii", "replace"), lsn)
    except tarfile.TarError as error:
        raise CorruptData(f"basebackup of {len(tar)} bytes is no tar: {error}") from error
    raise CorruptData(f"basebackup of {len(tar)} bytes holds no signal file")


def _parse_signal(text: str, lsn: Lsn) -> BaseState:
    prev = _PREV_LINE.search(text)
    if prev is None:
        raise CorruptData(f"signal file {text[:80]!r} has no line PREV LSN")
    taken = _LSN_LINE.search(text)
    at = lsn if taken is None else Lsn.parse(taken[1])
    return BaseState(at, Lsn.parse(prev[1]) if "/" in prev[1] else INVALID_LSN)


def check_base(base: BaseState, start_lsn: Lsn) -> None:
    """Refuse a base that is not the state the election ended at: what another compute committed in
    between would be overwritten (BUGBANK ``wp-basebackup-lsn-mismatch``)."""
    if base.lsn != start_lsn:
        raise SeawallError(
            f"the base was taken at {base.lsn}, but this compute was elected to write from "
            f"{start_lsn}; take a new base"
        )
    assert base.prev_lsn < start_lsn, f"record before {start_lsn} starts at {base.prev_lsn}"
