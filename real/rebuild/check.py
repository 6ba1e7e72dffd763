"""Does a rebuilt data directory equal what stock recovery makes of the same WAL?

A whole cluster runs a PostgreSQL under a varied workload. Of the ends of its commits some are
drawn; at each, ``fullbackup`` of the pageserver is compared with a copy of the first data directory
into which an unmodified server has replayed the same WAL up to there: files byte by byte but for
hints, ids, values; then amcheck, pg_visibility and pg_checksums look at the rebuilt one.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.cluster import Cluster
from harness.errors import CheckFailed
from harness.temporary import fresh_directory
from harness.topology import Topology
from harness.world import World
from real.backend import RealBackend
from real.postgres.binaries import Binaries, server_user
from real.postgres.compute import PostgresCompute
from real.postgres.template import Template
from real.postgres.untar import Untar
from real.postgres.wal_prefix import PrefixRequest
from real.rebuild import directories, picture, relation_steps, server_steps
from real.rebuild.figures import Figures, RebuildOptions
from real.rebuild.source import give_to_server, run_tool
from real.rebuild.stock import Recovery, Stock
from real.rebuild.wal_copy import WalCopy, copy_wal
from real.rebuild.work import Work
from storage.ids import TenantTimelineId
from storage.lsn import Lsn
from storage.wire.client import ConnectOptions, connect

STEPS: Final = (*relation_steps.STEPS, *server_steps.STEPS)
ENDPOINT: Final = "main"
TOPOLOGY: Final = Topology(
    safekeepers=1, pageserver_options={"gc_horizon": 1 << 40, "wait_lsn_timeout_s": 120.0}
)
"""One safekeeper is enough here; no LSN goes out of scope."""
_ANSWER_S_MAX: Final = 40.0


class RebuildCheck:
    """One run in the real world, which fails at the first LSN that differs."""

    def __init__(self, options: RebuildOptions, say: Callable[[str], None]) -> None:
        self.options = options
        self.figures = Figures()
        self._say = say

    async def __call__(self, world: World) -> None:
        """Run it all. ``CheckFailed`` names the LSN, what differs, and how to see it again."""
        cluster = await world.start(TOPOLOGY)
        endpoint = await cluster.endpoint(ENDPOINT)
        await endpoint.put(1, "source")
        backend, compute = world.backend, world.compute
        assert isinstance(backend, RealBackend), "PostgreSQL is a real process"
        assert isinstance(compute, PostgresCompute), "the source is a PostgreSQL"
        with self.figures.timing("workload"):
            work = Work(backend.short_directory / f"{ENDPOINT}.pg", self.options.seed)
            steps = await asyncio.to_thread(work.run, STEPS, self.options.rounds)
        self._say(f"worked: {' '.join(steps)}")
        with self.figures.timing("ingest"):
            end_lsn = await cluster.caught_up(
                cluster.pageserver(0), endpoint.timeline, within_s=_ANSWER_S_MAX
            )
        source = compute.template(TOPOLOGY.wal_segment_size)
        wal = await self._copy_wal(cluster, endpoint.timeline, source, end_lsn)
        home = fresh_directory("seawall-rebuild-")
        home.chmod(0o711)
        try:
            scene = Scene(cluster, endpoint.timeline, compute.binaries, source, home)
            scene.recovery.archive.mkdir(mode=0o755)
            wal.write_segments(source, scene.recovery.archive)
            for lsn in self._draw(wal):
                await self._check(scene, lsn)
        finally:
            shutil.rmtree(home)

    async def _copy_wal(
        self, cluster: Cluster, timeline: TenantTimelineId, source: Template, end_lsn: Lsn
    ) -> WalCopy:
        request = PrefixRequest(
            tenant_id=str(timeline.tenant_id),
            timeline_id=str(timeline.timeline_id),
            safekeepers=cluster.safekeeper_addresses(),
            wal_segment_size=source.wal_segment_size,
        )
        wal = await copy_wal(request, source.start_lsn, end_lsn)
        await asyncio.to_thread(wal.read, source)
        self.figures.wal_bytes, self.figures.records = len(wal.data), wal.records
        self.figures.commits, self.figures.kinds = len(wal.commits), wal.kinds
        return wal

    def _draw(self, wal: WalCopy) -> list[Lsn]:
        """One commit from each of as many equally long parts of the WAL as are wanted."""
        draw = random.Random(f"{self.options.seed}/lsns")
        length, count = wal.end_lsn - wal.start_lsn, self.options.lsns
        wishes = [
            wal.start_lsn + length * part // count + draw.randrange(length // count)
            for part in range(count)
        ]
        found = [bisect_right(wal.commits, wish) for wish in wishes]
        return [wal.commits[min(each, len(wal.commits) - 1)] for each in found]

    async def _check(self, scene: Scene, lsn: Lsn) -> None:
        """Build both directories, compare them at rest, then as servers."""
        rebuilt, stock = scene.stock("rebuilt"), scene.stock("recovered")
        with self.figures.timing("backups"):
            await scene.backup("fullbackup", lsn, rebuilt.data)
            await scene.backup("basebackup", lsn, rebuilt.home / "lean")
        scene.recovery.prepare(stock)
        async with AsyncExitStack() as servers:
            servers.callback(scene.clear)
            with self.figures.timing("recovery"):
                await servers.enter_async_context(stock.running(scene.recovery.settings(lsn)))
            self._judge(lsn, await asyncio.to_thread(self._compare_files, rebuilt, stock))
            with self.figures.timing("start"):
                await servers.enter_async_context(rebuilt.running({}))
            self._judge(lsn, await asyncio.to_thread(self._compare_servers, rebuilt, stock))
        self.figures.lsns += 1
        self._say(f"{lsn} equals stock recovery")

    def _judge(self, lsn: Lsn, differences: Sequence[str]) -> None:
        if differences:
            raise CheckFailed(
                f"the directory rebuilt at {lsn} is not what stock recovery makes: "
                f"{'; '.join(differences)}. To see it again: {self.options.replay}",
                checker="rebuild",
            )

    def _compare_files(self, rebuilt: Stock, stock: Stock) -> list[str]:
        """As they lie on disk: the recovered server has just written everything down."""
        with self.figures.timing("files"):
            comparison = directories.compare(rebuilt.data, stock.data)
            found = list(comparison.differences)
            found += directories.compare_lean(rebuilt.home / "lean", rebuilt.data)
            left, right = rebuilt.counters(), stock.counters()
            found += [
                f"{name} is {left[name]} instead of {right[name]}"
                for name in left
                if left[name] != right[name]
            ]
            oldest_xid, replayed = rebuilt.oldest_xid(), stock.oldest_xid()
            if oldest_xid < replayed:
                found.append(f"oldest xid {oldest_xid} is before the {replayed} of replay")
            if self.options.checksums:
                run_tool(rebuilt.binaries, "pg_checksums", "--check", "-D", str(rebuilt.data))
        self.figures.relations += comparison.relations
        self.figures.pages += comparison.pages
        self.figures.pages_masked += comparison.masked
        self.figures.slru_pages += comparison.slru_pages
        return found

    def _compare_servers(self, rebuilt: Stock, stock: Stock) -> list[str]:
        """By what they answer; and what the rebuilt one's own checks find."""
        with self.figures.timing("queries"):
            left, right = (picture.take_picture(each.home) for each in (stock, rebuilt))
            found = picture.differences(left, right)
            self.figures.tables += sum(len(database.tables) for database in right.values())
            for question in (_PREPARED, _ORIGINS):
                answers = [_ask(each.home, question) for each in (stock, rebuilt)]
                if answers[0] != answers[1]:
                    found.append(f"{question}: {answers[1]} instead of {answers[0]}")
        with self.figures.timing("amcheck"):
            for database in picture.database_names(rebuilt.home):
                found += picture.broken_relations(rebuilt.home, database)
        with picture.session(rebuilt.home) as run:
            run.execute("create table afterwards as select 1 as i; drop table if exists account")
        return found


_PREPARED: Final = "select gid, transaction::text, database from pg_prepared_xacts order by 1"
_ORIGINS: Final = (
    "select local_id, external_id, remote_lsn from pg_replication_origin_status order by 1"
)


def _ask(host: Path, question: str) -> list[Any]:
    with picture.session(host) as run:
        run.execute(question)
        return list(run.fetchall())


@dataclass(frozen=True)
class Scene:
    """Where a check happens: the cluster, and a directory for everything beside it."""

    cluster: Cluster
    timeline: TenantTimelineId
    binaries: Binaries
    source: Template
    home: Path

    @property
    def recovery(self) -> Recovery:
        """What stock recovery starts from."""
        return Recovery(self.source.path, self.home / "archive")

    def stock(self, name: str) -> Stock:
        """A place for a data directory and its server, empty."""
        home = self.home / name
        home.mkdir()
        give_to_server(home)
        return Stock(self.binaries, home)

    def clear(self) -> None:
        """Remove what the last LSN needed."""
        for name in ("rebuilt", "recovered"):
            shutil.rmtree(self.home / name)

    async def backup(self, command: str, lsn: Lsn, target: Path) -> None:
        """Unpack what the pageserver sends at an LSN."""
        user = server_user()
        archive = Untar(target, None if user is None else (user.pw_uid, user.pw_gid))
        host, _, port = self.cluster.pageserver(0).address.rpartition(":")
        client = await connect(host, int(port), options=ConnectOptions(timeout_s=_ANSWER_S_MAX))
        try:
            ident = f"{self.timeline.tenant_id} {self.timeline.timeline_id}"
            async for piece in client.copy_out(f"{command} {ident} {lsn}"):
                archive.feed(piece)
            archive.finish()
        finally:
            archive.close()
            await client.close()
