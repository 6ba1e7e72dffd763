"""What an administrator was told is done stays done, whoever restarts: attached tenants, detached
ones, timelines and branches. And nobody refuses as unknown what he was told exists.

Where requests that contradict each other overlap, or one has an unknown outcome, either may have
had the last word, and nothing is demanded. A disk that was wiped or damaged owes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from harness.admin_log import NEVER, AdminRequest
from harness.backend import Event
from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "admin_persists"

_TENANT = re.compile(r"/tenant/([0-9a-f]{32})(?:/(attach|detach))?\Z")
_TIMELINE = re.compile(r"/tenant/([0-9a-f]{32})/timeline/([0-9a-f]{32})\b")
_WHOLE_TIMELINE = re.compile(
    r"/tenant/([0-9a-f]{32})/timeline/([0-9a-f]{32})(?:/pull|\?remote=true)?\Z"
)
_ANY_TENANT = re.compile(r"/tenant/([0-9a-f]{32})\b")
_NEW_TIMELINE = re.compile(r"/tenant/([0-9a-f]{32})/timeline\Z")


class Thing(NamedTuple):
    """A tenant on a pageserver, or (with ``timeline``) a timeline on a safekeeper."""

    node: str
    tenant: str
    timeline: str = ""

    def __str__(self) -> str:
        what = f"timeline {self.tenant}/{self.timeline}" if self.timeline else self.tenant
        return f"{what if self.timeline else f'tenant {what}'} on {self.node}"


class AdminModel:
    """What must and must not exist, by the requests of a run and what befell the disks."""

    def __init__(self, requests: Sequence[AdminRequest], events: Iterable[Event] = ()) -> None:
        self._requests = requests
        self._lost_at_s = _losses(events)
        self._makes: dict[Thing, list[AdminRequest]] = {}
        self._ends: dict[Thing, list[AdminRequest]] = {}
        for request in requests:
            effect = effect_of(request)
            if effect is not None:
                thing, makes = effect
                (self._makes if makes else self._ends).setdefault(thing, []).append(request)

    def things(self) -> list[Thing]:
        """Everything that any request was about."""
        return sorted({*self._makes, *self._ends})

    def exists(self, thing: Thing, *, at_s: float = NEVER) -> bool | None:
        """Whether it must exist (or must not) for who asks at ``at_s``; ``None``: it may."""
        makes = [each for each in self._makes.get(thing, ()) if each.began_at_s < at_s]
        ends = [each for each in self._ends.get(thing, ()) if each.began_at_s < at_s]
        answered = [each for each in (*makes, *ends) if each.done and each.ended_at_s < at_s]
        if not answered:
            return None
        last = max(answered, key=lambda each: each.began_at_s)
        makes_it = last in makes
        for other in ends if makes_it else makes:
            if not other.without_effect and other.ended_at_s >= last.began_at_s:
                return None
        lost_at_s = self._lost_at_s.get(thing.node, [])
        if any(last.began_at_s <= each < at_s for each in lost_at_s):
            return None
        return makes_it

    def timelines(self, tenant: str) -> list[str]:
        """Timelines of a tenant that some pageserver said it created."""
        found: dict[str, None] = {}
        for request in self._requests:
            match = _NEW_TIMELINE.match(request.path)
            if match is not None and match[1] == tenant and request.done:
                found[str(request.body["timeline_id"])] = None
        return [timeline for timeline in found if not self._may_be_deleted(tenant, timeline)]

    def _may_be_deleted(self, tenant: str, timeline: str, *, at_s: float = NEVER) -> bool:
        """Whether somebody asked, before ``at_s``, to delete a timeline of a pageserver."""
        path = f"/tenant/{tenant}/timeline/{timeline}"
        return any(
            each.method == "DELETE" and each.path == path and each.began_at_s < at_s
            for each in self._requests
        )

    def check_refusals(self) -> int:
        """Check every answer that something does not exist; returns how many there are."""
        count = 0
        for request in self._requests:
            if request.status != HTTPStatus.NOT_FOUND:
                continue
            count += 1
            about = _TIMELINE.match(request.path)
            if about and self._may_be_deleted(about[1], about[2], at_s=request.ended_at_s):
                continue
            for thing in _about(request):
                if self.exists(thing, at_s=request.began_at_s) and self.exists(
                    thing, at_s=request.ended_at_s
                ):
                    raise CheckFailed(
                        f"{request.method} {request.path} was refused at {request.began_at_s:.3f} "
                        f"s as unknown, but {thing} was acknowledged before",
                        checker=CHECKER,
                    )
        return count


def effect_of(request: AdminRequest) -> tuple[Thing, bool] | None:
    """What a request makes (true) or ends (false), if it does."""
    if request.method == "POST":
        match = _TENANT.match(request.path)
        if match is not None:
            return Thing(request.node, match[1]), match[2] != "detach"
    if request.method in ("POST", "DELETE"):
        match = _WHOLE_TIMELINE.match(request.path)
        if match is not None:
            return Thing(request.node, match[1], match[2]), request.method == "POST"
    return None


def _about(request: AdminRequest) -> list[Thing]:
    """Things whose absence alone explains a refusal."""
    timeline, tenant = _TIMELINE.match(request.path), _ANY_TENANT.match(request.path)
    things = [] if tenant is None else [Thing(request.node, tenant[1])]
    if timeline is not None:
        things.append(Thing(request.node, timeline[1], timeline[2]))
    return things


def _losses(events: Iterable[Event]) -> dict[str, list[float]]:
    """When each node's disk was wiped, or began to lie or ended: it may lie in between."""
    found: dict[str, list[float]] = {}
    for event in events:
        if event.kind == "process" and event.fields["state"] == "wiped":
            found.setdefault(str(event.fields.get("node") or event.node), []).append(event.at_s)
        elif event.kind == "fault" and event.fields.get("damage"):
            for node in str(event.fields.get("target", "")).split():
                found.setdefault(node, []).append(event.at_s)
    return found


def check_presence(model: AdminModel, present: Mapping[Thing, bool]) -> int:
    """Compare what nodes say they have with what they must; returns how much was demanded."""
    demanded = 0
    for thing, found in sorted(present.items()):
        expected = model.exists(thing)
        if expected is None:
            continue
        demanded += 1
        if found != expected:
            story = "gone, but it was made" if expected else "there, but it was detached"
            raise CheckFailed(f"{thing} is {story}, and that was acknowledged", checker=CHECKER)
    return demanded


def check_timelines(model: AdminModel, tenant: str, found: Iterable[str], where: str) -> None:
    """A tenant's newest attachment has every timeline that any created."""
    missing = sorted(set(model.timelines(tenant)) - set(found))
    if missing:
        raise CheckFailed(
            f"tenant {tenant} on {where} lacks {len(missing)} timelines whose creation was "
            f"acknowledged, such as {missing[0]}",
            checker=CHECKER,
        )


def check_branch(timeline: str, expected: Lsn, found: Lsn | None) -> None:
    """A branch begins where its creation said."""
    if found != expected:
        raise CheckFailed(
            f"branch {timeline} begins at {found}, but at {expected} when it was created",
            checker=CHECKER,
        )
