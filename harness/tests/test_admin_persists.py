"""The model of administration: what must exist, what must not, and what nobody can demand."""

from __future__ import annotations

import asyncio

import pytest

from harness.admin_log import NEVER, AdminLog, AdminRequest
from harness.checkers.admin_persists import (
    AdminModel,
    Thing,
    check_branch,
    check_presence,
    check_timelines,
)
from harness.errors import CheckFailed
from harness.tests.reports import Reports
from storage.lsn import Lsn

TENANT, TIMELINE = "a" * 32, "b" * 32
HERE = Thing("ps0", TENANT)


def asked(
    verb: str, begin: float, end: float = NEVER, status: int | None = 200, node: str = "ps0"
) -> AdminRequest:
    path = f"/tenant/{TENANT}{'' if verb == 'create' else f'/{verb}'}"
    status = None if end == NEVER else status
    return AdminRequest(node, "POST", path, None, begin, end, status)


CREATE, ATTACH, DETACH = asked("create", 0, 1), asked("attach", 2, 3), asked("detach", 4, 5)


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([], None),
        ([CREATE], True),
        ([CREATE, DETACH], False),
        ([CREATE, DETACH, asked("attach", 6, 7)], True),
        ([asked("attach", 2, 3, 202)], None),
        ([asked("attach", 2)], None),
        ([CREATE, asked("detach", 2)], None),
        ([CREATE, asked("detach", 2, 3, 503)], None),
        ([CREATE, asked("detach", 2, 3, 409)], True),
        ([CREATE, asked("detach", 2), asked("attach", 8, 9)], None),
        ([CREATE, asked("detach", 2, 5), asked("attach", 4, 6)], None),
        ([CREATE, asked("detach", 2, 5, 404), asked("attach", 4, 6)], True),
        ([CREATE, asked("detach", 2, 3, node="ps1")], True),
    ],
)
def test_what_requests_lead_to(requests: list[AdminRequest], expected: bool | None) -> None:
    assert AdminModel(requests).exists(HERE) is expected


def test_what_was_made_must_be_there_and_what_was_detached_must_not() -> None:
    assert check_presence(AdminModel([CREATE]), {HERE: True}) == 1
    assert check_presence(AdminModel([CREATE, DETACH]), {HERE: False}) == 1
    assert check_presence(AdminModel([asked("attach", 1)]), {HERE: False}) == 0
    with pytest.raises(CheckFailed, match=f"tenant {TENANT} on ps0 is gone, but it was made"):
        check_presence(AdminModel([CREATE]), {HERE: False})
    with pytest.raises(CheckFailed, match="is there, but it was detached"):
        check_presence(AdminModel([CREATE, DETACH]), {HERE: True})


def test_timelines_on_safekeepers() -> None:
    path = f"/tenant/{TENANT}/timeline/{TIMELINE}"
    model = AdminModel([AdminRequest("sk0", "POST", path, {}, 0, 1, 200)])
    thing = Thing("sk0", TENANT, TIMELINE)
    assert check_presence(model, {thing: True}) == 1
    with pytest.raises(CheckFailed, match=f"timeline {TENANT}/{TIMELINE} on sk0 is gone"):
        check_presence(model, {thing: False})


def test_a_lost_disk_owes_nothing() -> None:
    wiped = Reports().process("ps1", "wiped").process("ps0", "started").process("ps0", "wiped")
    lying = Reports().add("harness", "fault", verb="rot", target="ps0", damage="it lies")
    assert AdminModel([asked("attach", 0, 1)], wiped.events).exists(HERE) is None
    assert AdminModel([asked("attach", 0, 1)], lying.events).exists(HERE) is None
    assert AdminModel([asked("attach", 5, 6)], wiped.events).exists(HERE) is True


def refused(begin: float, end: float, path: str = "/checkpoint") -> AdminRequest:
    full = f"/tenant/{TENANT}/timeline/{TIMELINE}{path}"
    return AdminRequest("ps0", "POST", full, None, begin, end, 404)


def test_nobody_refuses_as_unknown_what_was_acknowledged() -> None:
    assert AdminModel([refused(0, 1), asked("create", 2, 3)]).check_refusals() == 1
    assert AdminModel([CREATE, DETACH, refused(6, 7)]).check_refusals() == 1
    assert AdminModel([CREATE, DETACH, refused(3, 6)]).check_refusals() == 1
    assert AdminModel([CREATE, asked("detach", 2), refused(3, 6)]).check_refusals() == 1
    with pytest.raises(CheckFailed, match=r"was refused at 2\.000 s as unknown, but tenant"):
        AdminModel([CREATE, DETACH, refused(2, 3)]).check_refusals()


def test_timelines_and_branches() -> None:
    body = {"timeline_id": TIMELINE}
    made = AdminRequest("ps1", "POST", f"/tenant/{TENANT}/timeline", body, 0, 1, 200)
    model = AdminModel([made])
    check_timelines(model, TENANT, [TIMELINE, "c" * 32], "ps0")
    with pytest.raises(CheckFailed, match=f"lacks 1 timelines .* such as {TIMELINE}"):
        check_timelines(model, TENANT, ["c" * 32], "ps0")
    made.status = 503
    check_timelines(AdminModel([made]), TENANT, [], "ps0")
    check_branch("b", Lsn(8), Lsn(8))
    with pytest.raises(CheckFailed, match="begins at 0/10, but at 0/8"):
        check_branch("b", Lsn(8), Lsn(16))


def test_requests_are_recorded_whatever_becomes_of_them() -> None:
    log = AdminLog(lambda: 1.5)

    async def ask() -> None:
        with pytest.raises(OSError):
            await log.call("localhost", 1, ("POST", "/tenant/x", None))
        with pytest.raises(OSError):
            await log.call("localhost", 1, ("GET", "/tenant/x", None))

    asyncio.run(ask())
    (request,) = log.requests
    assert (request.status, request.ended_at_s, request.done) == (None, NEVER, False)
