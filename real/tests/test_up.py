"""``python -m real up`` as people use it: a process, its output, psql, curl, Ctrl-C, and again."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from harness.errors import HarnessError
from harness.temporary import scratch_directory
from harness.topology import Topology
from harness.verdict import INTERRUPTED
from real import process
from real.cluster_file import ClusterFile, locked

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 90.0


class Up:
    """One running ``up``."""

    def __init__(self, *words: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "real", "up", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []

    def read_until(self, pattern: str) -> str:
        """Read its output up to a line; the test's timeout is the output's end."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.append(line.rstrip("\n"))
            if re.search(pattern, line):
                return line
        raise AssertionError(f"it ended before {pattern!r}:\n" + "\n".join(self.lines))

    def ready(self) -> Up:
        self.read_until("Ctrl-C stops the cluster")
        return self

    def conninfo(self, hint: str) -> str:
        """The connection string of the first psql line that ends with ``hint``."""
        for line in self.lines:
            match = re.match(r'psql "(.*)" ' + re.escape(hint), line)
            if match:
                return match[1]
        raise AssertionError(f"no psql line with {hint!r} in:\n" + "\n".join(self.lines))

    def urls(self) -> list[str]:
        return [line.split()[-1] for line in self.lines if line.startswith(("curl", "browser"))]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal; returns the exit code, once nothing of the cluster is left."""
        pids = process.tree(self.child.pid)
        self.child.send_signal(number)
        rest, _ = self.child.communicate(timeout=WITHIN_S)
        self.lines += rest.splitlines()
        deadline_s = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline_s, f"left behind: {names_of(pids)}"
            time.sleep(0.02)
        return self.child.returncode

    def pid_of(self, title: str) -> int:
        (pid,) = [pid for pid in process.tree(self.child.pid) if title in names_of([pid])]
        return pid


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory that the user of PostgreSQL can get to, who is not root."""
    with scratch_directory("seawall-test-") as directory:
        directory.chmod(0o711)
        yield directory / "cluster"


def names_of(pids: list[int]) -> str:
    names = []
    for pid in pids:
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip())
    return "; ".join(names)


@contextlib.contextmanager
def running(*words: str) -> Iterator[Up]:
    up = Up(*words)
    try:
        yield up.ready()
    finally:
        if up.child.poll() is None:
            up.stop(signal.SIGTERM)
        assert up.child.stdout is not None
        up.child.stdout.close()


def ask(conninfo: str, *statements: str) -> list[tuple[object, ...]]:
    """Rows of the last statement, over libpq."""
    connection = psycopg2.connect(conninfo, connect_timeout=20)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())
    finally:
        connection.close()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return str(answer.read().decode())


@pytest.mark.row("G2.up", worlds=("real",))
def test_a_kept_cluster_of_postgres_starts_again_with_its_rows(data):
    with running("--data", str(data), "--pageservers", "2") as up:
        where = up.conninfo('-c "select version()"')
        assert ask(where, "select version()")[0][0].startswith("PostgreSQL")
        ask(where, "create table t as select generate_series(1, 500) as n", "select 1")
        status = dict(ask(up.conninfo("-c TIMELINE_STATUS"), "TIMELINE_STATUS"))
        assert status["proposers"] == "1"
        *apis, page = up.urls()
        assert {json_node(url) for url in apis} >= {
            "sk0", "sk1", "sk2", "ps0", "ps1",
        }  # fmt: skip
        assert all(f"<td>{name}<td>" in get(page) for name in ("sk0", "sk1", "sk2", "ps0", "ps1"))
        assert up.stop() == 0

    with running("--data", str(data)) as up:
        where = up.conninfo('-c "select version()"')
        assert ask(where, "select count(*), sum(n) from t") == [(500, 500 * 501 // 2)]
        assert any("ps1" in url for url in get(up.urls()[-1]).split("<tr>"))
        assert up.stop(signal.SIGTERM) == 0


def test_a_cluster_that_was_killed_outright_starts_again(data):
    """What S3 has acknowledged is on the disk by then, though moto keeps it in memory."""
    with running("--data", str(data), "--compute", "walgen", "--safekeepers", "1") as up:
        where = up.conninfo('-c "put 1 hello"')
        for key in range(20):
            ask(where, f"put {key} {'x' * 200}")
        tenant, timeline = (up.lines[number].split()[1] for number in (0, 1))
        page_service = next(url for url in up.urls() if json_node(url) == "ps0")
        checkpoint = f"/v1/tenant/{tenant}/timeline/{timeline}/checkpoint"
        request = urllib.request.Request(
            page_service.replace("/v1/status", checkpoint), method="POST"
        )
        urllib.request.urlopen(request, timeout=30).close()
        ask(where, "put 20 last")
        up.stop(signal.SIGKILL)
    assert list((data / "s3").rglob("*%object"))

    with running("--data", str(data)) as up:
        where = up.conninfo('-c "put 1 hello"')
        assert ask(where, "get 3") == [("x" * 200,)]
        assert ask(where, "get 20") == [("last",)]


def json_node(url: str) -> str:
    return json.loads(get(url)).get("node", "") if url.endswith("/status") else ""


@pytest.mark.parametrize("moment", ["real.s3_server", "seawall safekeeper sk0"])
def test_an_interrupt_before_it_is_ready_ends_everything(moment):
    up = Up("--compute", "walgen", "--safekeepers", "1")
    deadline_s = time.monotonic() + WITHIN_S
    while moment not in names_of(process.tree(up.child.pid)):
        assert time.monotonic() < deadline_s, f"{moment} never ran"
        time.sleep(0.01)

    assert up.stop() in (0, INTERRUPTED)
    assert not [line for line in up.lines if "Traceback" in line or "Ctrl-C" in line]


def test_a_node_that_dies_is_named_and_the_end_is_no_success():
    with running("--compute", "walgen", "--first-port", "23450") as up:
        process.kill_tree(up.pid_of("seawall safekeeper sk1"))
        line = up.read_until("died")
        assert line.startswith("sk1 died: killed by SIGKILL (log: ")
        assert all(1 <= int(url.split(":")[2].split("/")[0]) - 23450 < 15 for url in up.urls()[:-1])
        assert up.stop() == 1
        directory = Path(line.split("log: ")[1].split("/sk1/")[0])
    assert not directory.exists(), "nobody asked for it to be kept"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--compute", "walgen"], "the kept cluster has compute postgres, not walgen"),
        (["--safekeepers", "5"], "the kept cluster has safekeepers 3, not 5"),
    ],
)
def test_options_that_contradict_what_is_kept_are_refused(tmp_path, words, said):
    ClusterFile.fresh("postgres", Topology()).save(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "real", "up", "--data", str(tmp_path), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"seawall: {said}; ")


def test_a_strange_or_busy_or_broken_directory_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(HarnessError, match=r"holds 'thesis.tex' but no cluster.json"):
        ClusterFile.load(tmp_path)
    (tmp_path / "cluster.json").write_text('{"name": ')
    with pytest.raises(HarnessError, match="makes no sense"):
        ClusterFile.load(tmp_path)
    other = tmp_path / "other"
    with locked(other):
        assert ClusterFile.load(other) is None
        with pytest.raises(HarnessError, match=r"runs on .* already"), locked(other):
            raise AssertionError("two clusters on one directory")
    with locked(other):
        pass
