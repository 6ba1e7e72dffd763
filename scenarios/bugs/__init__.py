"""The bug bank: every bug of ``docs/bug-bank.md``, and how to put it back into the real code.

One file for each family. Which runs are tried on a bug is decided in ``conftest.py``: general
campaigns, never a scenario made for one bug.
"""

from __future__ import annotations

from harness.bug import Bug
from scenarios.bugs import (
    basebackup,
    invented_consensus,
    invented_gc,
    invented_offload,
    invented_pageserver,
    invented_streams,
    pageserver_attach,
    pageserver_branch,
    pageserver_gc,
    pageserver_upload,
    readonly,
    safekeeper,
    shutdown,
    walproposer,
    walreceiver,
)

BANK: tuple[Bug, ...] = (
    *safekeeper.BUGS,
    *walproposer.BUGS,
    *walreceiver.BUGS,
    *pageserver_gc.BUGS,
    *pageserver_branch.BUGS,
    *pageserver_upload.BUGS,
    *pageserver_attach.BUGS,
    *readonly.BUGS,
    *basebackup.BUGS,
    *shutdown.BUGS,
)
"""In the order of the document."""

OWN: tuple[Bug, ...] = (
    *invented_consensus.BUGS,
    *invented_pageserver.BUGS,
    *invented_gc.BUGS,
    *invented_streams.BUGS,
    *invented_offload.BUGS,
)
"""Slips of our own making: what history lacks, so that the suite is not made for history only."""
