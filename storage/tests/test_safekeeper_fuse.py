"""Work on a timeline is finished or the node dies; it is never left half done."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import SeawallError
from storage.http.client import call
from storage.safekeeper.fuse import Fuse, FuseBlown
from storage.safekeeper.state import Acceptor
from storage.tests.safekeeper_cluster import (
    PATH,
    START,
    TENANT,
    TIMELINE,
    Cluster,
    Writer,
    run_cluster,
)


def test_ordinary_errors_pass_and_a_cancellation_blows():
    async def story(_: Cluster):
        fuse = Fuse()
        with pytest.raises(SeawallError, match="as usual"), fuse.guard("work"):
            raise SeawallError("as usual")
        with fuse.guard("work"):
            pass
        with pytest.raises(asyncio.CancelledError), fuse.guard("the work"):
            raise asyncio.CancelledError
        with pytest.raises(FuseBlown, match="the work was dropped half way"):
            await fuse.blown()
        with pytest.raises(FuseBlown), fuse.guard("more work"):
            raise AssertionError("nothing is begun after that")

    run_cluster(story, count=1)


@pytest.mark.parametrize("method", ["flushed", "take_batch", "_elected"])
def test_a_defect_in_the_core_stops_the_node_instead_of_going_on(monkeypatch, method):
    def broken(self: Acceptor, *arguments: object) -> None:
        raise AssertionError("a defect")

    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        if method != "_elected":
            writer = Writer(proposer, (await proposer.elect()).start_lsn)
            monkeypatch.setattr(Acceptor, method, broken)
            writer.write(b"x")
        else:
            monkeypatch.setattr(Acceptor, method, broken)
            electing = asyncio.create_task(proposer.elect())
            await asyncio.sleep(1)
            electing.cancel()
        await asyncio.sleep(20)
        monkeypatch.undo()
        assert all("a defect" in (cluster.backend.died(name) or "") for name in cluster.names)

    run_cluster(story)


def test_a_caller_that_goes_away_does_not_take_the_work_with_it():
    """The connection that asked for a vote is reset while the disk is still busy with it."""

    async def story(cluster: Cluster):
        cluster.backend.disk("sk0").stall()
        proposer = cluster.proposer()
        elected = await proposer.elect()
        await asyncio.sleep(1)
        cluster.backend.network.reset("harness", "sk0")
        await asyncio.sleep(1)
        cluster.backend.disk("sk0").resume()
        await asyncio.sleep(5)
        assert (await cluster.status("sk0"))["term"] == elected.term
        assert cluster.backend.died("sk0") is None

    run_cluster(story)


@pytest.mark.row("E2.fuse", worlds=("sim",))
@pytest.mark.parametrize(
    ("work", "task"),
    [
        ("an election", "disk:decision"),
        ("a flush", "disk:wal flusher"),
        ("saving the control file", "disk:decision"),
    ],
)
def test_work_that_is_dropped_half_way_stops_the_node(work, task):
    """The disk has got a part of it; the last word says of what."""

    async def story(cluster: Cluster):
        proposer, disk = cluster.proposer(), cluster.backend.disk("sk0")
        if work == "an election":
            disk.stall()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        if work == "a flush":
            disk.stall()
            await writer.commit(b"x")
        elif work == "saving the control file":
            await cluster.level(await writer.commit(b"x"))
            disk.stall()
            body = {"backup_lsn": str(START)}
            saving = asyncio.create_task(call("POST", "sk0", 7676, f"{PATH}/patch", body))
        await asyncio.sleep(1)
        busy = [each for each in asyncio.all_tasks() if each.get_name() == task]
        busy[0].cancel()
        await asyncio.sleep(1)
        disk.resume()
        await asyncio.sleep(20)
        said = f"FuseBlown: {work} of {TENANT}/{TIMELINE} was dropped half way: CancelledError"
        assert (cluster.backend.died("sk0") or "").startswith(said)
        await cluster.start("sk0")
        if work == "saving the control file":
            assert isinstance((await asyncio.gather(saving, return_exceptions=True))[0], Exception)

    run_cluster(story, control_file_save_s=1000.0)
