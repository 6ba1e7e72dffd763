"""Errors of the wire protocol that its users meet."""

from __future__ import annotations

from storage.errors import BadRequest, SeawallError
from storage.wire import messages as m


class CopyFailed(BadRequest):
    """The client gave its half of a copy up (CopyFail); the message is its reason."""

    kind = "copy_failed"
    sqlstate = "57014"


class ServerError(SeawallError):
    """The server answered with an error; ``FATAL`` ones end the connection."""

    def __init__(self, report: m.ErrorResponse) -> None:
        super().__init__(f"{report.severity}: {report.message} (SQLSTATE {report.sqlstate})")
        self.severity = report.severity
        self.sqlstate = report.sqlstate
        self.message = report.message
        self.detail = report.detail
        self.hint = report.hint
