"""What only the client of etcd has: it closes, and says clearly what it cannot reach."""

import asyncio

import pytest

from real.broker import EtcdBroker
from real.etcd import EtcdClient, EtcdOptions
from real.servers import EtcdServer
from storage.errors import BrokerError


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    server.wait_ready()
    yield server
    server.stop()


def test_an_endpoint_nobody_listens_on_is_named():
    async def main():
        broker = EtcdBroker(EtcdOptions("127.0.0.1:1", timeout_s=1.0))
        try:
            with pytest.raises(BrokerError, match=r"etcd 127\.0\.0\.1:1 failed: unavailable"):
                await broker.get("")
        finally:
            await broker.close()

    asyncio.run(main())


def test_closing_ends_what_is_under_way_with_the_ports_own_error(etcd):
    async def main():
        options = EtcdOptions(etcd.endpoint, key_prefix="closing/")
        broker, other = EtcdBroker(options), EtcdBroker(options)
        leader = await other.campaign("e", "b", ttl_s=30.0)
        waiting = asyncio.ensure_future(broker.campaign("e", "a", ttl_s=30.0))
        subscribed = broker.subscribe("k")
        updates = await subscribed.__aenter__()
        reading = asyncio.ensure_future(anext(updates))
        await asyncio.sleep(0.1)

        await broker.close()

        for task in (waiting, reading):
            with pytest.raises(BrokerError):
                await asyncio.wait_for(task, 5.0)
        with pytest.raises(BrokerError, match="closed"):
            await broker.get("")
        await subscribed.__aexit__(None, None, None)
        await leader.resign()
        await other.close()
        await other.close()

    asyncio.run(main())


def test_prefixes_keep_runs_apart(etcd):
    async def main():
        one = EtcdBroker(EtcdOptions(etcd.endpoint, key_prefix="run1/"))
        two = EtcdBroker(EtcdOptions(etcd.endpoint, key_prefix="run11/"))
        await one.publish("k", b"1", ttl_s=30.0)
        await two.publish("k", b"2", ttl_s=30.0)
        async with one.subscribe("") as updates:
            assert (await anext(updates)).value == b"1"
        assert await one.get("") == {"k": b"1"}
        assert await two.get("") == {"k": b"2"}
        await one.close()
        await two.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("prefix", "span"),
    [
        ("a", (b"a", b"b")),
        ("a/", (b"a/", b"a0")),
        ("", (b"\0", b"\0")),
        ("é", ("é".encode(), b"\xc3\xaa")),
        ("\N{LATIN SMALL LETTER Y WITH DIAERESIS}", (b"\xc3\xbf", b"\xc3\xc0")),
    ],
)
def test_spans_of_prefixes(prefix, span):
    assert EtcdClient(EtcdOptions("127.0.0.1:1"))._span(prefix) == span
