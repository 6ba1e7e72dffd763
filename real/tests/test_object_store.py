"""What only the client of S3 has: it closes, and says clearly what it cannot reach."""

import asyncio
import dataclasses
import socket

import pytest

from real.object_store import S3ObjectStore, S3Options
from real.s3_server import Credentials, OneAtATime, SignatureCheck, signature
from real.servers import S3Server
from storage.errors import ObjectStoreError

NOBODY = S3Options("http://127.0.0.1:1", "b", "key", "secret", connect_timeout_s=1.0)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    server.wait_ready()
    yield server.options
    server.stop()


def failure(options, call):
    async def main():
        store = S3ObjectStore(options)
        try:
            with pytest.raises(ObjectStoreError) as raised:
                await call(store)
            return raised.value
        finally:
            await store.close()

    return asyncio.run(main())


def test_an_endpoint_nobody_listens_on_is_named():
    error = failure(NOBODY, lambda store: store.put("k", b""))

    assert "put of 'k' at http://127.0.0.1:1 got no answer" in str(error)
    assert "running and reachable" in str(error)
    assert not error.may_have_happened


def test_a_server_that_never_reads_is_given_up():
    """Neither connecting nor writing fails there: only the time of the whole request ends it."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            store = S3ObjectStore(
                dataclasses.replace(NOBODY, endpoint=endpoint, request_timeout_s=0.2)
            )
            with pytest.raises(ObjectStoreError, match="timed out") as raised:
                await store.put("k", bytes(30_000_000))
            await store.close()
        # The reset that follows ends the connection, which still has bytes to send.
        await asyncio.sleep(0.1)
        return raised.value.may_have_happened

    assert asyncio.run(main())


def test_a_missing_bucket_is_not_a_missing_object(s3):
    elsewhere = dataclasses.replace(s3, bucket="elsewhere")

    for call in (lambda store: store.get("k"), lambda store: store.put("k", b"")):
        error = failure(elsewhere, call)
        assert type(error) is ObjectStoreError
        assert "there is no such bucket" in str(error)


def test_wrong_credentials_name_the_key_and_the_variables(s3):
    for wrong in ({"access_key": "stranger"}, {"secret_key": "stranger"}):
        options = dataclasses.replace(s3, **wrong)
        error = failure(options, lambda store: store.list(""))
        assert f"for access key {options.access_key!r}" in str(error)
        assert "SEAWALL_S3_ACCESS_KEY" in str(error)
        assert options.secret_key not in str(error)


def test_a_closed_store_says_so(s3):
    async def closed(store):
        await store.list("")
        await store.close()
        await store.list("")

    assert "closed" in str(failure(s3, closed))


def test_prefixes_keep_runs_apart(s3):
    async def main():
        stores = [
            S3ObjectStore(dataclasses.replace(s3, key_prefix=prefix)) for prefix in ("r1/", "r11/")
        ]
        for number, store in enumerate(stores):
            await store.put("k", b"%d" % number)
        assert [await store.get("k") for store in stores] == [b"0", b"1"]
        assert [[each.key for each in await store.list("")] for store in stores] == [["k"], ["k"]]
        for store in stores:
            await store.close()

    asyncio.run(main())


def test_signatures_agree_with_the_published_example():
    """AWS, "Authenticating Requests: Using the Authorization Header", example GET object."""
    environ = {
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/test.txt",
        "HTTP_HOST": "examplebucket.s3.amazonaws.com",
        "HTTP_RANGE": "bytes=0-9",
        "HTTP_X_AMZ_CONTENT_SHA256": (
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        ),
        "HTTP_X_AMZ_DATE": "20130524T000000Z",
    }
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")

    signed = signature(
        environ,
        "host;range;x-amz-content-sha256;x-amz-date",
        "20130524/us-east-1/s3/aws4_request",
        credentials,
    )

    assert signed == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


def test_requests_without_a_good_signature_never_reach_the_server():
    reached = []
    check = SignatureCheck(lambda environ, start: reached.append(environ), Credentials("a", "s"))
    answers = []

    for authorization in ("", "AWS4-HMAC-SHA256 nonsense", "Basic YTpi"):
        environ = {"REQUEST_METHOD": "GET", "RAW_URI": "/", "HTTP_AUTHORIZATION": authorization}
        body = check(environ, lambda status, headers: answers.append(status))
        assert b"AccessDenied" in b"".join(body)

    assert reached == []
    assert answers == ["403 Forbidden"] * 3


def test_one_request_at_a_time():
    """moto checks a condition and stores in two steps: a second request must not come between."""
    import io
    import threading

    inside, overlaps = [], []
    entered, leave = threading.Event(), threading.Event()

    def application(environ, start_response):
        overlaps.append(len(inside))
        inside.append(environ)
        entered.set()
        leave.wait(5.0)
        inside.pop()
        return [environ["wsgi.input"].read()]

    served = OneAtATime(application)
    bodies = []

    def serve(body):
        environ = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        bodies.append(b"".join(served(environ, lambda *_: None)))

    threads = [threading.Thread(target=serve, args=(b"%d" % n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    entered.wait(5.0)
    leave.set()
    for thread in threads:
        thread.join(5.0)

    assert sorted(bodies) == [b"0", b"1", b"2"]
    assert overlaps == [0, 0, 0]
