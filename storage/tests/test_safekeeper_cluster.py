"""Safekeepers and walproposer end to end, over the simulated network and disks."""

from __future__ import annotations

import asyncio

import pytest

from storage.lsn import Lsn
from storage.tests.safekeeper_cluster import SEGMENT, START, VERSION, Cluster, Writer, run_cluster
from storage.wal.reader import WalReader
from storage.walproposer.proposer import Deposed, WalProposer


async def last_record(proposer: WalProposer) -> Lsn:
    """Start of the last record before the epoch, found as a compute without pages would."""
    until = proposer.campaign.start_lsn
    reader = WalReader(START, VERSION, SEGMENT)
    if until > START:
        reader.feed(await proposer.read_back(START, until))
    return reader.last_lsn or Lsn(0)


def test_commits_reach_every_safekeeper():
    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        elected = await proposer.elect()
        assert (elected.term, elected.start_lsn) == (1, START)
        writer = Writer(proposer, elected.start_lsn)
        for number in range(50):
            await writer.commit(b"record %d" % number)
        end = writer.wal.position
        await cluster.level(end)
        assert len(await cluster.digests(end)) == 1
        await proposer.close()

    run_cluster(story)


def test_a_second_proposer_recovers_the_tail_and_deposes_the_first():
    async def story(cluster: Cluster):
        first = cluster.proposer(1)
        start = (await first.elect()).start_lsn
        writer = Writer(first, start)
        end = await writer.commit(b"one", b"two")
        prev = writer.wal.prev_lsn

        second = cluster.proposer(2)
        elected = await second.elect()
        assert elected.start_lsn == end
        assert elected.term == 2
        assert second.commit_lsn >= end

        last = writer.write(b"too late")
        with pytest.raises(Deposed):
            await first.wait_committed(last)
        assert first.deposed
        with pytest.raises(Deposed):
            writer.write(b"later still")

        heir = Writer(second, elected.start_lsn, prev)
        end = await heir.commit(b"three")
        await cluster.level(end)
        assert len(await cluster.digests(end)) == 1

    run_cluster(story)


def test_commits_go_on_without_one_safekeeper_which_catches_up_from_a_donor():
    async def story(cluster: Cluster):
        await cluster.backend.kill("sk2", host=True)
        proposer = cluster.proposer(wal_retained_bytes_max=64 * 1024)
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        for _ in range(300):
            end = await writer.commit(bytes(1000))
        assert proposer.campaign.log.begin_lsn > START
        await cluster.start("sk2")
        await cluster.level(end)
        assert len(await cluster.digests(end)) == 1

    run_cluster(story)


@pytest.mark.parametrize("seed", range(5))
def test_acknowledged_wal_survives_the_death_of_every_host(seed):
    async def story(cluster: Cluster):
        end = START
        for number in range(1, 6):
            proposer = cluster.proposer(number)
            elected = await proposer.elect()
            assert elected.start_lsn >= end
            writer = Writer(proposer, elected.start_lsn, await last_record(proposer))
            for _ in range(20):
                end = await writer.commit(bytes(500))
            for _ in range(20):
                writer.write(bytes(300))
            await asyncio.sleep(0.001 * number)
            for name in cluster.names:
                await cluster.backend.kill(name, host=True)
            await proposer.close()
            await cluster.start()
            for name in cluster.names:
                status = await cluster.status(name)
                assert status["term"] == number

    run_cluster(story, seed=seed)
