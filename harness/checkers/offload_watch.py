"""Offloaded WAL at every moment: what a safekeeper believes to be in S3 is there, and stays there.

A safekeeper removes WAL on that belief, so a manifest that follows later, or goes back, is wrong
even if all is well at the end. Its fencing token does not go back either, and is the one that the
broker gave to whoever wrote it: an offloader that was replaced writes nothing. For worlds whose
bucket can be read past every fault and in no time, and whose broker never forgets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from harness.admin_log import AdminRequest
from harness.backend import Event
from harness.checkers.bucket_watch import LOOKS_EVERY_S, at_once
from harness.checkers.offloaded_wal import CHECKER
from harness.errors import CheckFailed
from storage.errors import ObjectMissing
from storage.lsn import Lsn
from storage.ports import ObjectStore

Timeline = tuple[str, str]
"""Tenant and timeline id."""


class Claim(NamedTuple):
    """What a manifest says: neither number ever goes back. ``node`` has written it."""

    fencing_token: int
    backup_lsn: Lsn
    node: str


NOTHING = Claim(0, Lsn(0), "")


class OffloadWatch:
    """The manifests of one cluster. ``requests``: what administrators asked for so far; who was
    told by hand what is in S3 (``/patch``), or to remove it, is not judged."""

    def __init__(self, objects: ObjectStore, requests: Sequence[AdminRequest]) -> None:
        self._objects = objects
        self._requests = requests
        self._claims: dict[Timeline, Claim] = {}
        self._starts: dict[Timeline, int] = {}
        self._elected: dict[tuple[Timeline, int], str] = {}
        self._look_at_s = LOOKS_EVERY_S

    def observe(self, event: Event) -> bool:
        """Look at a manifest when a safekeeper tells of it, at all of them now and then; whether
        the event told of one."""
        if event.at_s >= self._look_at_s:
            self._look_at_s = event.at_s + LOOKS_EVERY_S
            for timeline in list(self._claims):
                self._look(event, timeline)
        if event.kind == "offloader":
            token = int(str(event.fields["token"]))
            self._elected[_timeline(event), token] = str(event.fields["node"])
        if event.kind != "lsn" or event.fields["name"] != "backup_lsn":
            return False
        timeline = _timeline(event)
        told = event.fields["value"]
        assert isinstance(told, int), f"{event} has no number"
        claim = self._look(event, timeline)
        # The first one to tell of a timeline has just created it.
        start = self._starts.setdefault(timeline, told)
        if claim is not None and max(claim.backup_lsn, start) < told:
            raise _failure(
                event,
                timeline,
                f"{event.node} believes that WAL up to {Lsn(told)} is in S3, the manifest says "
                f"{claim.backup_lsn}",
            )
        return claim is not None

    def _look(self, event: Event, timeline: Timeline) -> Claim | None:
        """What the manifest says now; ``None`` if nobody is bound by it."""
        if self._is_released(timeline):
            self._claims.pop(timeline, None)
            return None
        known, found = self._claims.get(timeline, NOTHING), self._read(timeline)
        if found.fencing_token < known.fencing_token or found.backup_lsn < known.backup_lsn:
            raise _failure(event, timeline, f"the manifest goes back from {known} to {found}")
        if found != NOTHING and self._elected.get((timeline, found.fencing_token)) != found.node:
            raise _failure(event, timeline, f"{found} is of nobody who was elected with that token")
        self._claims[timeline] = found
        return found

    def _read(self, timeline: Timeline) -> Claim:
        key = f"safekeeper/{timeline[0]}/{timeline[1]}/manifest.json"
        try:
            body = json.loads(at_once(self._objects.get(key)))
        except ObjectMissing:
            return NOTHING
        return Claim(int(body["fencing_token"]), Lsn.parse(body["backup_lsn"]), body["node"])

    def _is_released(self, timeline: Timeline) -> bool:
        path = f"/tenant/{timeline[0]}/timeline/{timeline[1]}"
        return any(
            request.path == f"{path}/patch"
            or (request.method == "DELETE" and request.path == f"{path}?remote=true")
            for request in self._requests
        )


def _timeline(event: Event) -> Timeline:
    return str(event.fields["tenant"]), str(event.fields["timeline"])


def _failure(event: Event, timeline: Timeline, what: str) -> CheckFailed:
    return CheckFailed(
        f"at {event.at_s:.6f} s, offloaded WAL of timeline {'/'.join(timeline)}: {what}",
        checker=CHECKER,
    )
