"""A page for browsers: every node of a running cluster, how far it is, where to look further."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from html import escape
from typing import Any

from aiohttp import web

from real.guide import Guide, Place
from storage.errors import SeawallError
from storage.http.client import call
from storage.ids import TenantTimelineId

ANSWER_S_MAX = 2.0
_STYLE = (
    "body{font:15px system-ui;margin:2em;max-width:75em}table{border-collapse:collapse}"
    "td,th{padding:.35em .8em;border-bottom:1px solid #ccc;text-align:left}"
    "code{font-size:13px}.down{color:#b00}"
)
_LSNS = ("flush_lsn", "commit_lsn", "last_record_lsn", "remote_consistent_lsn", "backup_lsn")


class StatusPage:
    """Serves ``/`` on loopback; each view asks every node."""

    def __init__(self) -> None:
        self.guide: Guide | None = None
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> str:
        """Listen on a loopback port (0: any); returns the page's address."""
        application = web.Application()
        application.router.add_get("/", self._show)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, shutdown_timeout=1.0)
        await site.start()
        host, actual = self._runner.addresses[0][:2]
        return f"http://{host}:{actual}/"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _show(self, _request: web.Request) -> web.Response:
        guide = self.guide
        if guide is None:
            return web.Response(text="The cluster is starting.", status=503)
        shown = [place for place in guide.places if place.http]
        found = await asyncio.gather(*(state_of(place, guide.timeline) for place in shown))
        return web.Response(text=page(guide, shown, found), content_type="text/html")


async def state_of(place: Place, timeline: TenantTimelineId) -> dict[str, Any] | str:
    """What a node says of the timeline, or why it says nothing."""
    tenant_id, timeline_id = timeline
    paths = (f"/v1/tenant/{tenant_id}/timeline/{timeline_id}", "/v1/status")
    why = ""
    for path in paths:
        try:
            answer = await call("GET", place.node, place.http, path, timeout_s=ANSWER_S_MAX)
        except (OSError, TimeoutError, SeawallError) as error:
            why = str(error) or type(error).__name__
        else:
            return dict(answer)
    return why


def page(guide: Guide, shown: Sequence[Place], found: Sequence[dict[str, Any] | str]) -> str:
    """The whole document."""
    rows = "".join(_row(guide, *pair) for pair in zip(shown, found, strict=True))
    heads = "".join(f"<th>{name}" for name in ("node", *_LSNS, "more"))
    tenant, timeline = guide.timeline
    commands = escape(guide.text(None).split("\n\nbrowser")[0])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Seawall</title>"
        f"<meta http-equiv=refresh content=2><style>{_STYLE}</style>"
        f"<h1>Seawall, {escape(guide.compute)}</h1>"
        f"<p>tenant <code>{tenant}</code> timeline <code>{timeline}</code></p>"
        f"<table><tr>{heads}</tr>{rows}</table><h2>From a terminal</h2><pre>{commands}</pre></html>"
    )


def _row(guide: Guide, place: Place, state: dict[str, Any] | str) -> str:
    if isinstance(state, str):
        return f"<tr><td>{place.node}<td class=down colspan={len(_LSNS) + 1}>{escape(state)}</tr>"
    lsns = "".join(f"<td>{escape(str(state.get(name, '')))}" for name in _LSNS)
    paths = ["/v1/status", "/v1/tasks", "/v1/openapi.json"]
    if place.node.startswith("sk"):
        paths.append("/v1/metrics")
    links = " ".join(
        f"<a href={json.dumps(guide.url(place, path))}>{path.removeprefix('/v1/')}</a>"
        for path in paths
    )
    return f"<tr><td>{place.node}{lsns}<td>{links}</tr>"
