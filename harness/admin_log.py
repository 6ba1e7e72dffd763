"""The recorded history of administration: each request to a node's own API that is meant to change
something, and each answer that a thing does not exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from storage.http.client import HttpError, call

NEVER = float("inf")


@dataclass(slots=True)
class AdminRequest:
    """One request; ``path`` without ``/v1``. Times in seconds since the run began.

    ``status``: 200, or that of a refusal; ``None`` while nobody knows the outcome, and then
    ``ended_at_s`` is never.
    """

    node: str
    method: str
    path: str
    body: Any
    began_at_s: float
    ended_at_s: float = NEVER
    status: int | None = None

    @property
    def done(self) -> bool:
        """Whether it was answered with success."""
        return self.status == HTTPStatus.OK

    @property
    def without_effect(self) -> bool:
        """Whether it was refused in a way that proves that nothing changed, nor ever will."""
        return self.status is not None and 400 <= self.status < 500


class AdminLog:
    """Every request in order of its beginning. ``now_s`` is the world's clock."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.requests: list[AdminRequest] = []
        self._now_s = now_s

    async def call(self, node: str, port: int, request: tuple[str, str, Any]) -> Any:
        """Send ``request`` (method, path, body) and record it; raises what the client raises."""
        method, path, body = request
        record = AdminRequest(node, method, path, body, self._now_s())
        changes = method != "GET"
        if changes:
            self.requests.append(record)
        try:
            answer = await call(method, node, port, f"/v1{path}", body)
        except HttpError as error:
            record.status, record.ended_at_s = error.status, self._now_s()
            if not changes and error.status == HTTPStatus.NOT_FOUND:
                self.requests.append(record)
            raise
        record.status, record.ended_at_s = int(HTTPStatus.OK), self._now_s()
        return answer
