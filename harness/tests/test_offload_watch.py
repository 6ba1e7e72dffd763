"""What safekeepers believe to be in S3 is there, does not go back, and is the newest leader's."""

from __future__ import annotations

import json

import pytest

from harness.admin_log import AdminRequest
from harness.backend import Event
from harness.checkers.offload_watch import OffloadWatch
from harness.errors import CheckFailed
from storage.errors import ObjectMissing
from storage.lsn import Lsn

TENANT, TIMELINE = "0a" * 16, "0b" * 16
IDS = {"tenant": TENANT, "timeline": TIMELINE}
PATH = f"/tenant/{TENANT}/timeline/{TIMELINE}"


class Story:
    """A manifest that a test writes, and whoever tells of it."""

    def __init__(self) -> None:
        self.requests: list[AdminRequest] = []
        self._body: dict[str, object] | None = None
        self._oracle = OffloadWatch(self, self.requests)  # type: ignore[arg-type]

    async def get(self, key: str) -> bytes:
        assert key == f"safekeeper/{TENANT}/{TIMELINE}/manifest.json"
        if self._body is None:
            raise ObjectMissing(key)
        return json.dumps(self._body).encode()

    def elected(self, node: str, token: int) -> Story:
        assert not self._see("offloader", node=node, token=token)
        return self

    def written(self, node: str, token: int, lsn: int) -> Story:
        self._body = {"fencing_token": token, "node": node, "backup_lsn": str(Lsn(lsn))}
        return self

    def told(self, lsn: int) -> bool:
        return self._see("lsn", name="backup_lsn", value=lsn)

    def later(self, at_s: float = 9.0) -> bool:
        return self._see("lsn", at_s, name="commit_lsn", value=1)

    def asked(self, method: str, path: str) -> Story:
        self.requests.append(AdminRequest("sk0", method, path, None, 1.0))
        return self

    def _see(self, kind: str, at_s: float = 1.0, **fields: str | int) -> bool:
        return self._oracle.observe(Event(at_s, "sk0", kind, {**IDS, **fields}))


def offloaded() -> Story:
    story = Story()
    assert story.told(0x100), "where the timeline begins"
    story.elected("sk1", 7).written("sk1", 7, 0x200)
    assert story.told(0x200)
    return story


def test_what_is_there_may_be_believed():
    story = offloaded()
    assert story.told(0x180)
    assert story.elected("sk2", 9).written("sk2", 9, 0x300).told(0x300)
    assert not story.later()
    assert not Story().later()


def test_a_belief_that_comes_before_the_manifest_is_seen():
    with pytest.raises(CheckFailed, match=r"sk0 believes .* 0/201 .* says 0/200") as failure:
        offloaded().told(0x201)
    assert failure.value.checker == "offloaded_wal"
    story = Story()
    assert story.told(0x100)
    with pytest.raises(CheckFailed, match="says 0/0"):
        story.told(0x101)


@pytest.mark.parametrize(("token", "lsn"), [(7, 0x1FF), (6, 0x200), (0, 0)])
def test_a_manifest_that_goes_back_is_seen_although_nobody_tells_of_it(token, lsn):
    story = offloaded().elected("sk1", token).written("sk1", token, lsn)
    with pytest.raises(CheckFailed, match="goes back from"):
        story.later()


def test_who_was_not_elected_with_a_token_does_not_write_it():
    for node, token in (("sk2", 7), ("sk1", 8)):
        story = offloaded().written(node, token, 0x300)
        with pytest.raises(CheckFailed, match="nobody who was elected"):
            story.told(0x300)


def test_what_administrators_do_by_hand_binds_nobody():
    assert not Story().asked("POST", f"{PATH}/patch").told(0x200)
    story = offloaded().asked("DELETE", f"{PATH}?remote=true").written("sk1", 7, 0)
    assert not story.later()
    with pytest.raises(CheckFailed, match="goes back"):
        offloaded().asked("DELETE", PATH).written("sk1", 7, 0).later()
