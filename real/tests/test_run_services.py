"""S3 and etcd as a run's nodes reach them: faulted like any link, and apart from other runs."""

import asyncio

import pytest

from harness.backend import NodeSpec
from harness.errors import HarnessError, UnsupportedFault
from real.backend import RealBackend, RealOptions
from real.loop import NamedHostLoop
from real.object_store import S3ObjectStore
from real.service_switch import S3Switch
from real.session import RealSession

OPTIONS = RealOptions(roles="real.tests.toy_ports:ROLES")


@pytest.fixture(scope="module")
def session():
    session = RealSession(["real.tests.toy_ports", "real.node_ports"])
    yield session
    session.close()


def run(work):
    async def bounded():
        async with asyncio.timeout(60):
            return await work

    with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
        return runner.run(bounded())


async def start(backend, name):
    await backend.spawn(NodeSpec(name, "user"))
    await backend.wait_ready(name, within_s=20)


async def logged(backend, text, count=1):
    while [line.text for line in backend.logs()].count(f"toy: {text}") < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def complaints(backend):
    return [line.text for line in backend.logs() if line.level not in ("INFO", "DEBUG")]


def test_every_port_works_and_outages_are_felt_and_survived(session):
    async def story():
        backend = RealBackend(session, OPTIONS)
        try:
            await start(backend, "n0")
            for switch, service, error in (
                (backend.object_store, "s3", "ObjectStoreError"),
                (backend.broker, "broker", "BrokerError"),
            ):
                switch.outage()
                await logged(backend, f"{service} fails: {error}")
                switch.restore()
                await logged(backend, f"{service} works", count=2)
                assert sum(switch.effects().values()) > 0
        finally:
            await backend.close()
        return backend

    assert complaints(run(story())) == []


def test_a_cut_link_to_etcd_takes_it_from_one_node_alone(session):
    async def story():
        backend = RealBackend(session, OPTIONS)
        try:
            await start(backend, "n0")
            await start(backend, "n1")
            backend.network.cut("n0", "broker")
            await logged(backend, "broker fails: BrokerError")
            backend.network.heal("n0", "broker")
            await logged(backend, "broker works", count=3)
        finally:
            await backend.close()
        return backend

    backend = run(story())
    failed = [line.node for line in backend.logs() if "broker fails" in line.text]
    assert set(failed) == {"n0"}


def test_runs_that_share_services_see_only_their_own_and_clean_up(session):
    async def story():
        loop = asyncio.get_running_loop()
        first = RealBackend(session, OPTIONS)
        await start(first, "n0")
        loop.leave()
        second = RealBackend(session, OPTIONS)
        await start(second, "n1")
        try:
            assert [found.key for found in await first.admin_objects().list("")] == ["names/n0"]
            assert [found.key for found in await second.admin_objects().list("")] == ["names/n1"]
            assert await first.admin_broker().get("") == {"names/n0": b"n0"}
            assert await second.admin_broker().get("") == {"names/n1": b"n1"}
        finally:
            await first.close()
            await second.close()

    run(story())

    async def left():
        everything = S3ObjectStore(session.services.s3)
        try:
            return await everything.list("")
        finally:
            await everything.close()

    assert run(left()) == []


def test_a_session_without_services_says_so():
    session = RealSession(["real.tests.toy_roles"], with_services=False)

    async def story():
        backend = RealBackend(session, OPTIONS)
        try:
            with pytest.raises(HarnessError, match="without services: no S3, no etcd"):
                backend.admin_objects()
        finally:
            await backend.close()

    run(story())
    session.close()


def test_a_server_that_cannot_be_found_is_named(session, monkeypatch):
    monkeypatch.setenv("SEAWALL_S3_ENDPOINT", "http://no-such-host.invalid:9000")
    with pytest.raises(HarnessError, match="set but not SEAWALL_S3_BUCKET, SEAWALL_S3_ACCESS_KEY"):
        RealSession(["real.tests.toy_roles"])
    for name in ("BUCKET", "ACCESS_KEY", "SECRET_KEY"):
        monkeypatch.setenv(f"SEAWALL_S3_{name}", "x")
    external = RealSession(["real.tests.toy_roles"])

    async def story():
        with pytest.raises(
            HarnessError,
            match=r"S3 cannot be used: .*http://no-such-host\.invalid:9000 got no answer",
        ):
            RealBackend(external, OPTIONS)

    try:
        run(story())
    finally:
        external.close()


def test_wrong_credentials_are_one_clear_sentence(session, monkeypatch):
    s3 = session.services.s3
    monkeypatch.setenv("SEAWALL_S3_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("SEAWALL_S3_BUCKET", s3.bucket)
    monkeypatch.setenv("SEAWALL_S3_ACCESS_KEY", s3.access_key)
    monkeypatch.setenv("SEAWALL_S3_SECRET_KEY", "wrong")
    external = RealSession(["real.tests.toy_roles"])

    async def story():
        with pytest.raises(HarnessError, match="for access key 'seawall'; check SEAWALL_S3_ACCESS"):
            RealBackend(external, OPTIONS)

    try:
        run(story())
    finally:
        external.close()


def test_an_outage_of_a_service_past_the_hub_is_refused():
    switch = S3Switch(hub=None, note=lambda **_: None, proxy=None, linked=False)

    with pytest.raises(UnsupportedFault, match="s3 is reached by https"):
        switch.outage()
