"""Nobody takes a tenant that was given to somebody else: a pageserver becomes a tenant's newest
attachment only because it was asked to, since the one before became it, or because it was it.

A restart finds what the disk says; it does not undo what an administrator did meanwhile. Read past
every fault whenever a pageserver tells of a tenant, so for worlds whose bucket takes no time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.admin_log import AdminRequest
from harness.backend import Event
from harness.checkers.bucket_watch import at_once
from harness.errors import CheckFailed
from storage.errors import ObjectMissing
from storage.ports import ObjectStore

CHECKER = "attachments"

_ATTACH = re.compile(r"/tenant/([0-9a-f]{32})/attach\Z")


@dataclass(frozen=True, slots=True)
class Claim:
    """A generation that was seen for the first time, whose it is, and when."""

    generation: int
    node: str
    at_s: float


class Attachments:
    """The newest claim on each tenant. ``requests``: what administrators asked for so far."""

    def __init__(self, objects: ObjectStore, requests: Sequence[AdminRequest]) -> None:
        self._objects = objects
        self._requests = requests
        self._newest: dict[str, Claim] = {}

    def observe(self, event: Event) -> bool:
        """Look whose a tenant is when a pageserver tells of it; whether it is anybody's."""
        if event.kind != "tenant_state":
            return False
        tenant = str(event.fields["tenant"])
        claim = self._look(tenant, event.at_s)
        before = self._newest.get(tenant)
        if claim is None:
            return False
        if before is not None and claim.generation <= before.generation:
            return True
        self._newest[tenant] = claim
        if before is None or before.node == claim.node:
            return True
        if not any(self._explains(request, claim, tenant, before) for request in self._requests):
            raise CheckFailed(
                f"at {event.at_s:.6f} s tenant {tenant} is {claim.node}'s in generation "
                f"{claim.generation}, and was {before.node}'s since {before.at_s:.6f} s; nobody "
                f"has asked {claim.node} since then to attach it",
                checker=CHECKER,
            )
        return True

    def _look(self, tenant: str, now_s: float) -> Claim | None:
        try:
            data = at_once(self._objects.get(f"pageserver/{tenant}/generation.json"))
        except ObjectMissing:
            return None
        found = json.loads(data)
        return Claim(found["generation"], found["node"], now_s)

    def _explains(self, request: AdminRequest, claim: Claim, tenant: str, before: Claim) -> bool:
        """Whether a request may have been carried out since the claim before."""
        match = _ATTACH.match(request.path)
        return (
            match is not None
            and match[1] == tenant
            and request.node == claim.node
            and request.ended_at_s >= before.at_s
        )
