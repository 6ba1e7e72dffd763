"""Fills WAL segments quickly: transactions that change many pages at once."""

from __future__ import annotations

from harness.endpoint_handle import EndpointHandle
from harness.errors import HarnessError
from storage.lsn import Lsn

_PAGES = 32
_KEYS_PER_PAGE = 16
_PAGE_STRIDE = 32
FIRST_KEY = 100_000


async def fill_wal(endpoint: EndpointHandle, size: int) -> Lsn:
    """Write until the WAL is ``size`` bytes longer; returns the last commit's LSN.

    For computes that tell LSNs (walgen).
    """
    begin = await _transaction(endpoint, 0)
    end, number = begin, 0
    while end - begin < size:
        number += 1
        end = await _transaction(endpoint, number)
    return end


async def _transaction(endpoint: EndpointHandle, number: int) -> Lsn:
    """Some 100 KiB of WAL: half of each of 32 pages."""
    keys = [
        FIRST_KEY + page * _PAGE_STRIDE + key
        for page in range(_PAGES)
        for key in range(_KEYS_PER_PAGE)
    ]
    # Values are unique, so that a read names the write it saw.
    lsn = await endpoint.txn({key: f"{endpoint.name} {endpoint.now_s()} {number} {key} "
                              .ljust(200, "x") for key in keys})  # fmt: skip
    if lsn is None:
        raise HarnessError(f"{endpoint.name} tells no LSN; use walgen")
    return lsn
