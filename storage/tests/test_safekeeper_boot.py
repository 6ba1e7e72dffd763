"""What a safekeeper finds on its disk when it starts, and what it refuses to start with."""

from __future__ import annotations

import asyncio

import pytest

from harness.backend import NodeSpec
from harness.errors import NodeDied
from harness.fault_ports import Loss
from sim.disk_faults import DiskFault, DiskOperation
from storage.http.client import HttpError, call
from storage.lsn import Lsn
from storage.tests.safekeeper_chaos import last_record
from storage.tests.safekeeper_cluster import (
    PATH,
    SEGMENT,
    START,
    TENANT,
    TIMELINE,
    Cluster,
    Writer,
    run_cluster,
)

CONTROL_FILE_SAVE_S = 0.5
DIRECTORY = f"timelines/{TENANT}/{TIMELINE}"


async def restart_all(cluster: Cluster, *, host: bool = True) -> None:
    for name in cluster.names:
        await cluster.backend.kill(name, host=host)
    await cluster.start()


@pytest.mark.parametrize("size", [100, 3000, 20_000, SEGMENT - 60_000])
def test_the_log_ends_at_the_last_record_after_every_host_died(size):
    """Whatever the record crosses: pages, the segment's border, or nothing."""

    async def story(cluster: Cluster):
        proposer = cluster.proposer(1)
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        ends = [await writer.commit(bytes(size)) for _ in range(3)]
        await proposer.close()
        await restart_all(cluster)
        for name in cluster.names:
            status = await cluster.status(name)
            assert Lsn.parse(status["flush_lsn"]) >= Lsn.parse(status["commit_lsn"])
        second = cluster.proposer(2)
        assert (await second.elect()).start_lsn == ends[-1]
        await cluster.level(ends[-1])
        assert len(await cluster.digests(ends[-1], "sk0", "sk1", "sk2")) == 1

    run_cluster(story)


def test_an_untouched_timeline_ends_at_its_start_in_the_middle_of_a_segment():
    """A scan that falls back to the segment's start would rewrite history."""

    async def story(cluster: Cluster):
        start = Lsn(START + 8192 + 40)
        body = {
            "start_lsn": str(start), "system_id": 5, "pg_version": 16,
            "wal_segment_size": SEGMENT, "safekeepers": cluster.addresses,
        }  # fmt: skip
        other = f"/v1/tenant/{TENANT}/timeline/{'3' * 32}"
        await call("POST", "sk0", 7676, other, body)
        await cluster.backend.kill("sk0", host=True)
        await cluster.start("sk0")
        found = await call("GET", "sk0", 7676, other)
        assert found["flush_lsn"] == found["commit_lsn"] == str(start)
        assert found["timeline_start_lsn"] == str(start)

    run_cluster(story)


def test_a_clean_stop_saves_what_a_restart_wants_to_know():
    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        end = await writer.commit(b"x" * 100)
        await cluster.level(end)
        for name in cluster.names:
            await cluster.backend.stop(name, within_s=10)
            assert cluster.backend.died(name) is None
        await cluster.start()
        for name in cluster.names:
            assert (await cluster.status(name))["commit_lsn"] == str(end)

    run_cluster(story, control_file_save_s=3600.0)


def test_the_control_file_is_saved_once_in_a_while():
    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        end = await writer.commit(b"x" * 100)
        await cluster.level(end)
        await proposer.close()
        await cluster.eventually(lambda: saved(cluster, end), within_s=3)
        await restart_all(cluster)
        for name in cluster.names:
            assert (await cluster.status(name))["commit_lsn"] == str(end)

    async def saved(cluster: Cluster, end: Lsn) -> bool:
        disks = [cluster.backend.disk(name).view() for name in cluster.names]
        files = [await disk.open(f"{DIRECTORY}/safekeeper.control") for disk in disks]
        contents = [await file.pread(0, await file.size()) for file in files]
        return all(f'"commit_lsn": "{end}"'.encode() in content for content in contents)

    run_cluster(story, control_file_save_s=1.0)


async def refusal_to_start(cluster: Cluster, name: str = "sk0") -> str:
    await cluster.backend.spawn(NodeSpec(name, "safekeeper", {"node_id": 0}))
    with pytest.raises(NodeDied) as refused:
        await cluster.backend.wait_ready(name, within_s=10)
    return str(refused.value)


def test_wal_that_a_crashed_process_left_unsynced_is_made_durable_before_it_counts():
    """The page cache outlives the process, but not the machine.

    Found by a campaign whose oracle missed a report. A peer's commit was adopted and saved for WAL
    that was readable and not durable; after a power cut the safekeeper claimed to have zeros.
    """

    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        await cluster.level(await writer.commit(b"x" * 100))
        disk = cluster.backend.disk("sk0")
        disk.stall(syncs_only=True)
        end = await writer.commit(b"y" * 3000)
        await cluster.level(end, "sk1", "sk2")
        await cluster.backend.kill("sk0")
        disk.resume()
        await proposer.close()
        await cluster.start("sk0")
        await cluster.level(end)
        await asyncio.sleep(CONTROL_FILE_SAVE_S + 1)

        await cluster.backend.kill("sk0", host=True, loss=Loss.EVERYTHING)
        await cluster.start("sk0")
        status = await cluster.status("sk0")
        assert (status["flush_lsn"], status["commit_lsn"]) == (str(end), str(end))
        assert len(await cluster.digests(end)) == 1

    run_cluster(story, control_file_save_s=CONTROL_FILE_SAVE_S)


def test_a_corrupt_control_file_is_refused_by_name():
    async def story(cluster: Cluster):
        await cluster.backend.kill("sk0")
        disk = cluster.backend.disk("sk0")
        file = await disk.view().open(f"{DIRECTORY}/safekeeper.control")
        await file.pwrite(30, b"garbage")
        message = await refusal_to_start(cluster)
        assert f"{DIRECTORY}/safekeeper.control: CRC is" in message

    run_cluster(story)


def test_lost_files_are_refused_by_name():
    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        await cluster.level(await writer.commit(b"x"))
        await cluster.backend.stop("sk0", within_s=10)
        disk = cluster.backend.disk("sk0").view()
        await disk.rename(f"{DIRECTORY}/safekeeper.control", "saved")
        assert "has WAL but no safekeeper.control" in await refusal_to_start(cluster)
        await disk.rename("saved", f"{DIRECTORY}/safekeeper.control")
        await disk.unlink(f"{DIRECTORY}/000000010000000000000010")
        assert "000000010000000000000010 is missing" in await refusal_to_start(cluster)

    run_cluster(story)


def test_a_creation_that_was_never_confirmed_leaves_nothing_in_the_way():
    async def story(cluster: Cluster):
        await cluster.backend.kill("sk0")
        disk = cluster.backend.disk("sk0").view()
        other = f"timelines/{TENANT}/{'4' * 32}"
        await disk.mkdir(other)
        await disk.open(f"{other}/safekeeper.control.tmp", create=True)
        await cluster.start("sk0")
        path = f"/v1/tenant/{TENANT}/timeline/{'4' * 32}"
        with pytest.raises(HttpError, match="does not exist"):
            await call("GET", "sk0", 7676, path)
        body = {
            "start_lsn": "0/1000000", "system_id": 5, "pg_version": 16,
            "wal_segment_size": SEGMENT, "safekeepers": cluster.addresses,
        }  # fmt: skip
        await call("POST", "sk0", 7676, path, body)

    run_cluster(story)


def test_creating_again_is_harmless_and_something_else_a_conflict():
    async def story(cluster: Cluster):
        await cluster.create()
        with pytest.raises(HttpError, match="exists with start_lsn 0/1000000, not 0/2000000"):
            await cluster.create(Lsn(0x2000000))
        for change, complaint in (
            ({"pg_version": 14}, "version 14"),
            ({"wal_segment_size": 12345}, "12345"),
            ({"safekeepers": []}, "name the members"),
        ):
            with pytest.raises(HttpError, match=complaint) as refused:
                body = {
                    "start_lsn": "0/1000000", "system_id": 5, "pg_version": 16,
                    "wal_segment_size": SEGMENT, "safekeepers": ["sk0:5454"], **change,
                }  # fmt: skip
                await call("POST", "sk0", 7676, PATH.replace(TIMELINE, "5" * 32), body)
            assert refused.value.status == 400

    run_cluster(story)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "node_id is missing"),
        ({"node_id": 1, "hartbeat_s": 2}, "unknown safekeeper option 'hartbeat_s'"),
        ({"node_id": "one"}, "node_id is 'one'"),
        ({"node_id": 1, "heartbeat_s": -1}, "heartbeat_s is -1"),
    ],
)
def test_wrong_options_are_refused_by_name(options, complaint):
    async def story(cluster: Cluster):
        await cluster.backend.spawn(NodeSpec("sk9", "safekeeper", options))
        with pytest.raises(NodeDied, match=complaint):
            await cluster.backend.wait_ready("sk9", within_s=10)

    run_cluster(story, count=1)


@pytest.mark.parametrize(
    ("fault", "operation"),
    [
        (DiskFault.EIO, DiskOperation.FDATASYNC),
        (DiskFault.EIO, DiskOperation.PWRITE),
        (DiskFault.ENOSPC, DiskOperation.PWRITE),
        (DiskFault.EIO, DiskOperation.FSYNC),
        (DiskFault.EIO, DiskOperation.RENAME),
        (DiskFault.EIO, DiskOperation.SYNC_DIR),
    ],
)
def test_a_disk_that_fails_now_and_then_costs_no_commit_and_heals(fault, operation):
    async def story(cluster: Cluster):
        proposer = cluster.proposer(1)
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        for number in range(40):
            if number % 10 == 5:
                cluster.backend.disk("sk1").arm(fault, operation)
            await writer.commit(bytes(9000))
        await proposer.close()
        cluster.backend.disk("sk1").arm(fault, operation)
        second = cluster.proposer(2)
        elected = await second.elect()
        writer = Writer(second, elected.start_lsn, await last_record(second))
        for _ in range(200):
            end = await writer.commit(bytes(9000))
        cluster.backend.disk("sk1").disarm()
        await cluster.level(end)
        assert len(await cluster.digests(end)) == 1
        assert cluster.backend.died("sk1") is None

    run_cluster(story)
