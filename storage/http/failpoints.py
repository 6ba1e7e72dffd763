"""The routes by which every node's failpoints are armed and looked at."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from storage.failpoints import Action, Failpoints, Plan, parse_failpoint
from storage.http.api import Api, Request
from storage.http.schema import NATURAL, NUMBER, TEXT, object_of

_PATH = "/failpoints"
_PLAN = object_of(
    {"action": {"type": "string", "enum": [action.value for action in Action]}},
    {
        "message": TEXT,
        "delay_s": NUMBER,
        "skip": NATURAL,
        "count": NATURAL,
        "probability": NUMBER,
        "draw": NATURAL,
    },
)


def add_failpoints(api: Api, failpoints: Failpoints) -> None:
    """Add ``/failpoints`` to an API, unless it has it."""

    async def snapshot(_request: Request) -> Any:
        return [asdict(state) for state in failpoints.snapshot()]

    async def arm(request: Request) -> Any:
        name = parse_failpoint(request.path["name"])
        body = dict(request.body)
        failpoints.arm(name, Plan(Action(body.pop("action")), **body))
        return {}

    async def disarm(request: Request) -> Any:
        failpoints.disarm(parse_failpoint(request.path["name"]))
        return {}

    if api.has("GET", _PATH):
        return
    api.add("GET", _PATH, snapshot, summary="Every failpoint: its plan, hits, who waits at it")
    api.add("PUT", _PATH + "/{name}", arm, summary="Have a failpoint act", body=_PLAN)
    api.add("DELETE", _PATH + "/{name}", disarm, summary="Have it do nothing")
