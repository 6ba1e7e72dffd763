"""Tenants change hands because somebody asked for it, and for no other reason."""

from __future__ import annotations

import json

import pytest

from harness.admin_log import NEVER, AdminRequest
from harness.backend import Event
from harness.checkers.attachments import Attachments
from harness.errors import CheckFailed
from storage.errors import ObjectMissing

TENANT = "0a" * 16


class Hands:
    """A tenant that is claimed by whoever a test says, and looked at each time."""

    def __init__(self) -> None:
        self.requests: list[AdminRequest] = []
        self._now_s = 0.0
        self._claim: dict[str, object] | None = None
        self._oracle = Attachments(self, self.requests)  # type: ignore[arg-type]

    async def get(self, key: str) -> bytes:
        assert key == f"pageserver/{TENANT}/generation.json"
        if self._claim is None:
            raise ObjectMissing(key)
        return json.dumps(self._claim).encode()

    def asked(self, node: str, *, answered: bool = True) -> Hands:
        self._now_s += 1
        request = AdminRequest(node, "POST", f"/tenant/{TENANT}/attach", None, self._now_s)
        request.ended_at_s = self._now_s if answered else NEVER
        self.requests.append(request)
        return self

    def claims(self, node: str, generation: int) -> bool:
        self._now_s += 1
        self._claim = {"tenant_id": TENANT, "generation": generation, "node": node}
        return self.look()

    def look(self) -> bool:
        fields = {"tenant": TENANT, "state": "Active"}
        return self._oracle.observe(Event(self._now_s, "ps0", "tenant_state", fields))


def test_who_was_asked_may_take_over() -> None:
    hands = Hands()
    assert not hands.look()
    assert hands.asked("ps0").claims("ps0", 1)
    assert hands.claims("ps0", 2), "a restart claims its own again"
    assert hands.asked("ps1").claims("ps1", 3)
    assert hands.asked("ps0").claims("ps0", 4)
    assert hands.look()


def test_a_request_whose_outcome_is_unknown_may_be_carried_out_late() -> None:
    hands = Hands()
    hands.asked("ps0", answered=False).claims("ps0", 1)
    hands.asked("ps1").claims("ps1", 2)
    assert hands.claims("ps0", 3)


def test_who_was_asked_before_may_not_take_it_back() -> None:
    hands = Hands()
    hands.asked("ps0").claims("ps0", 1)
    hands.asked("ps1").claims("ps1", 2)
    with pytest.raises(
        CheckFailed, match=r"is ps0's in generation 3, and was ps1's since"
    ) as found:
        hands.claims("ps0", 3)
    assert found.value.checker == "attachments"
