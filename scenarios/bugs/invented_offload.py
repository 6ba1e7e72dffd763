"""Slips of our own making about what keeps offloaders of WAL apart."""

from __future__ import annotations

from collections.abc import Sequence

from harness.bug import Bug
from scenarios.bugs.slip import slip
from storage.safekeeper.backup import Offloader
from storage.safekeeper.remote_wal import Manifest, RemoteWal


async def _replace_any_manifest(self: RemoteWal, manifest: Manifest, etag: str | None) -> str:
    """Whoever writes last is right."""
    return await self._bounded(self._objects.put(self._manifest_key, manifest.encode()))


async def _sure_of_itself(self: Offloader, manifest: Manifest) -> None:
    """A token above ours can only be of a broker that has forgotten."""


BUGS: Sequence[Bug] = (
    slip("own-manifest-over-anything", "O2 O3", "an offloader is replaced while it writes",
          (RemoteWal, "replace_manifest", _replace_any_manifest)),
    slip("own-claim-unconfirmed", "O2 O3", "an offloader is replaced before it claims",
          (Offloader, "_check_still_leading", _sure_of_itself)),
)  # fmt: skip
