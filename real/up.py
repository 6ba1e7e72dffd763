"""A whole local cluster, started and stopped as one: ``python -m real up`` (SYSTEM.md G2).

Safekeepers, pageservers, etcd and S3 are processes of their own; the endpoint ``main`` is walgen or
PostgreSQL. In a data directory that is kept, a later start finds everything that was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.cluster import Cluster
from harness.compute import Compute
from harness.temporary import fresh_directory
from harness.topology import Topology
from harness.verdict import RunSettings
from harness.walgen import WalgenCompute
from harness.world import World
from real.backend import RealBackend, RealOptions
from real.cluster_file import ClusterFile, locked
from real.guide import ENDPOINT, Guide, Place, places
from real.loop import NamedHostLoop
from real.postgres.compute import PostgresCompute
from real.session import PRELOAD, RealSession
from real.status_page import StatusPage

WATCH_S = 0.2
OBJECTS, TEMPLATES = "s3", "templates"
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class UpOptions:
    """What to start. ``data`` is kept, ``None`` is a fresh directory that is not; loopback ports
    count up from ``first_port``, 0 is any free ones; ``None`` elsewhere: as it was kept, or 3
    safekeepers, 1 pageserver, PostgreSQL."""

    data: Path | None = None
    compute: str | None = None
    safekeepers: int | None = None
    pageservers: int | None = None
    discovery: str | None = None
    first_port: int = 0


def up(options: UpOptions, say: Callable[[str], None] = print) -> int:
    """Run a cluster until SIGINT or SIGTERM; exit code 0 if every node lived until then, else 1.

    Raises ``HarnessError`` for what cannot be started.
    """
    with _data_directory(options) as directory:
        file = _cluster_file(options, directory)
        session = RealSession(PRELOAD, keep_objects=directory / OBJECTS)
        try:
            with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
                return runner.run(LocalCluster(session, file, directory).run(options, say))
        finally:
            session.close()


@contextmanager
def _data_directory(options: UpOptions) -> Iterator[Path]:
    directory = options.data or fresh_directory("seawall-up-")
    try:
        with locked(directory):
            # PostgreSQL may run as a user of its own, who has to get to the template.
            directory.chmod(0o711)
            yield directory.resolve()
    finally:
        if options.data is None:
            shutil.rmtree(directory, ignore_errors=True)


def _cluster_file(options: UpOptions, directory: Path) -> ClusterFile:
    """The kept cluster, which the options must not contradict, or a new one."""
    kept = ClusterFile.load(directory)
    known = kept or ClusterFile.fresh("postgres", Topology())
    wanted = ClusterFile(
        name=known.name,
        compute=options.compute or known.compute,
        safekeepers=options.safekeepers or known.safekeepers,
        pageservers=options.pageservers or known.pageservers,
        discovery=options.discovery or known.discovery,
        wal_segment_size=known.wal_segment_size,
    )
    if kept is not None:
        kept.check_same(wanted)
        return kept
    wanted.save(directory)
    return wanted


class LocalCluster:
    """One run of a cluster on its data directory."""

    def __init__(self, session: RealSession, file: ClusterFile, directory: Path) -> None:
        self._file = file
        self._directory = directory
        self._seed = secrets.randbits(48)
        self._page = StatusPage()
        options = RealOptions(seed=self._seed, directory=directory, kept_name=file.name)
        self._session, self._options = session, options
        self._deaths: list[str] = []

    async def run(self, options: UpOptions, say: Callable[[str], None]) -> int:
        """Start, tell how to connect, wait for a signal, stop in order."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, stopping.set)
        backend = RealBackend(self._session, self._options)
        try:
            working = asyncio.create_task(self._start_and_watch(backend, options, say))
            waiting = asyncio.create_task(stopping.wait())
            await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if working.done():
                await working
            say("stopping")
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            return 1 if self._deaths else 0
        finally:
            await self._stop(backend)

    async def _start_and_watch(
        self, backend: RealBackend, options: UpOptions, say: Callable[[str], None]
    ) -> None:
        settings = RunSettings("real", self._file.compute, self._seed)
        computes: dict[str, Compute] = {
            "walgen": WalgenCompute(),
            "postgres": PostgresCompute(self._directory / TEMPLATES),
        }
        cluster = await World(backend, settings, computes).start(self._file.topology)
        await self._start_endpoint(cluster)
        guide = await self._make_guide(backend, cluster, options.first_port)
        say(guide.text(options.data and self._directory))
        await self._watch(backend, cluster, say)

    async def _start_endpoint(self, cluster: Cluster) -> None:
        timeline = self._file.timeline
        if timeline is None:
            timeline = await cluster.create_tenant()
            self._file = self._file.with_timeline(timeline)
            self._file.save(self._directory)
        else:
            cluster.timelines.append(timeline)
        await cluster.endpoint(ENDPOINT, timeline=timeline)

    async def _make_guide(self, backend: RealBackend, cluster: Cluster, first_port: int) -> Guide:
        found = places(
            self._file.compute,
            [node.name for node in cluster.safekeepers],
            [node.name for node in cluster.pageservers],
        )
        if first_port:
            _expose(backend, found, first_port + 1)
        url = await self._page.start(first_port)
        timeline = self._file.timeline
        assert timeline is not None, "an endpoint has a timeline"
        guide = Guide(self._file.compute, timeline, found, backend.host_port, url)
        self._page.guide = guide
        return guide

    async def _watch(
        self, backend: RealBackend, cluster: Cluster, say: Callable[[str], None]
    ) -> None:
        """Say of every node that ends by itself that it did, and where its log is."""
        names = [node.name for node in cluster.nodes]
        names += [node.name for each in cluster.endpoints.values() for node in each.nodes]
        while names:
            for name in list(names):
                reason = backend.died(name)
                if reason is not None:
                    self._deaths.append(name)
                    names.remove(name)
                    say(f"{name} died: {reason} (log: {self._directory / name / 'node.log'})")
            await asyncio.sleep(WATCH_S)

    async def _stop(self, backend: RealBackend) -> None:
        """The endpoint first, while its quorum still acknowledges; then everything at once."""
        await self._page.close()
        for name in (ENDPOINT, f"{ENDPOINT}-wp"):
            with contextlib.suppress(Exception):
                await backend.stop(name, within_s=10.0)
        await backend.close()


def _expose(backend: RealBackend, found: list[Place], port: int) -> None:
    for place in found:
        for service in filter(None, (place.libpq, place.http)):
            backend.host_port(place.node, service, port)
            port += 1
