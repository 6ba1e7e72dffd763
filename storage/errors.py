"""Typed errors of the storage system; the class says whose fault it was.

* :class:`PortError`: the environment (disk, object store, broker) failed.
* :class:`ProtocolError`: a peer, or we, broke a protocol.
* :class:`CorruptData`: bytes at rest are not what was written.
* :class:`RequestError`: a request is refused; carries what each front end must tell its client.
* Network failures stay asyncio's own (``ConnectionError``, ``asyncio.IncompleteReadError``).
"""

from __future__ import annotations

from typing import ClassVar


class SeawallError(Exception):
    """Root of every error this project raises on purpose."""


class PortError(SeawallError):
    """The environment failed; ``may_have_happened``: the effect is possible all the same."""

    def __init__(self, message: str, *, may_have_happened: bool = False) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened


class DiskError(PortError):
    """A disk operation failed (EIO and the like); an fsync that fails may have persisted part."""


class DiskFull(DiskError):
    """ENOSPC: nothing, or a prefix, of the data was written."""


class FileMissing(DiskError):
    """The path names no file or directory."""


class FileAlreadyExists(DiskError):
    """An exclusive create found the path taken."""


class ObjectStoreError(PortError):
    """The object store failed or did not answer; check ``may_have_happened``."""


class ObjectMissing(ObjectStoreError):
    """The store's authoritative answer: there is no such object."""


class PreconditionFailed(ObjectStoreError):
    """A conditional put lost: the object is not in the state the caller named."""


class BrokerError(PortError):
    """The broker failed or did not answer; check ``may_have_happened``."""


class ProtocolError(SeawallError):
    """A message that the protocol does not allow here; the connection is not usable any more."""


class CorruptData(SeawallError):
    """Stored bytes fail their checksum or structure; names the file or LSN and what was found."""


class RequestError(SeawallError):
    """A request is refused. ``kind`` names the reason for programs, the message is for people."""

    kind: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    sqlstate: ClassVar[str] = "XX000"


class BadRequest(RequestError):
    """The request itself is malformed; the message names the value and what is expected."""

    kind = "bad_request"
    http_status = 400
    sqlstate = "22023"


class NotFound(RequestError):
    """The tenant, timeline or other thing named does not exist here."""

    kind = "not_found"
    http_status = 404
    sqlstate = "42704"


class Conflict(RequestError):
    """The request contradicts the present state (another operation, other parameters)."""

    kind = "conflict"
    http_status = 409
    sqlstate = "55006"


class NotReady(RequestError):
    """Not yet: the same request may succeed later (attaching, waiting for WAL, stopping)."""

    kind = "not_ready"
    http_status = 503
    sqlstate = "57P03"


class LsnOutOfScope(RequestError):
    """The LSN lies before initdb or before latest_gc_cutoff; the message names both LSNs."""

    kind = "lsn_out_of_scope"
    http_status = 416
    sqlstate = "22003"
