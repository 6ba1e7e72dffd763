"""Safekeepers and walproposer end to end, over the simulated network and disks."""

from __future__ import annotations

import asyncio

import pytest

from storage.tests.safekeeper_chaos import last_record
from storage.tests.safekeeper_cluster import START, Cluster, Writer, run_cluster
from storage.walproposer.campaign import Phase
from storage.walproposer.proposer import Deposed, Elected


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


def test_a_record_that_arrives_during_a_flush_is_answered_for_by_the_next_one():
    """Live migration, broker, seed 4: nobody answered, and it waited for the next heartbeat."""

    async def story(cluster: Cluster):
        loop = asyncio.get_running_loop()
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        await writer.commit(b"the first one makes a segment")
        for gap_us in range(50, 2000, 50):
            begun_s = loop.time()
            first = writer.write(b"first")
            await asyncio.sleep(gap_us / 1e6)
            await writer.commit(b"second")
            assert proposer.commit_lsn > first
            assert loop.time() - begun_s < 0.1, f"the second came {gap_us} us after the first"
        await proposer.close()

    run_cluster(story)


def test_whoever_ends_in_order_tells_the_last_commit_first():
    async def story(cluster: Cluster):
        proposer = cluster.proposer(commit_announce_delay_s=1000.0, heartbeat_s=1000.0)
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        end = await writer.commit(b"the last")
        await proposer.close()
        states = [await cluster.status(name) for name in cluster.names]
        told = [state for state in states if state["flush_lsn"] == str(end)]
        assert len(told) >= 2
        assert [state["commit_lsn"] for state in told] == [str(end)] * len(told)

    run_cluster(story, broker_publish_s=1000.0)


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


def test_a_donor_that_breaks_off_is_asked_again():
    async def story(cluster: Cluster):
        await cluster.backend.kill("sk2")
        proposer = cluster.proposer(wal_retained_bytes_max=64 * 1024)
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        for _ in range(50):
            end = await writer.commit(bytes(200_000))
        network = cluster.backend.network
        network.delay("sk2", "harness", 0.02)
        await cluster.start("sk2")
        for _ in range(30):
            for name in ("sk0", "sk1"):
                network.reset("harness", name)
            await asyncio.sleep(0.15)
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


def test_an_election_that_stands_still_is_given_up_for_a_higher_term():
    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        electing = asyncio.create_task(proposer.elect())
        while proposer.phase is not Phase.VOTING:  # noqa: ASYNC110 - it has no event for this
            await asyncio.sleep(0.0001)
        for name in ("sk1", "sk2"):
            cluster.backend.network.cut("harness", name)
        await asyncio.sleep(30)
        assert not electing.done()
        assert proposer.phase is Phase.GATHERING
        for name in ("sk1", "sk2"):
            cluster.backend.network.heal("harness", name)
        async with asyncio.timeout(15):
            assert (await electing).term > 1

    run_cluster(story)


def test_two_that_want_to_lead_at_once_end_with_one_leader():
    async def story(cluster: Cluster):
        rivals = [cluster.proposer(number) for number in range(1, 5)]
        results = await asyncio.gather(*(r.elect() for r in rivals), return_exceptions=True)
        terms = [r.term for r in results if isinstance(r, Elected)]
        assert len(set(terms)) == len(terms)
        leader = max((r for r in rivals if not r.deposed), key=lambda r: r.campaign.term)
        assert leader.campaign.term == max(terms)
        await Writer(leader, leader.campaign.start_lsn).commit(b"x")

    run_cluster(story)


def test_a_safekeeper_without_the_timeline_is_left_out_until_it_has_it():
    async def story(cluster: Cluster):
        await cluster.backend.kill("sk2")
        await cluster.backend.wipe("sk2")
        await cluster.start("sk2")
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        await writer.commit(b"x")
        await cluster.create()
        await cluster.level(await writer.commit(b"y"))

    run_cluster(story)


def test_commit_lsn_reaches_an_idle_safekeeper_soon():
    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        end = await writer.commit(b"x")
        await asyncio.sleep(0.1)
        for name in cluster.names:
            assert (await cluster.status(name))["commit_lsn"] == str(end)

    run_cluster(story)


def test_votes_and_elections_are_observable():
    async def story(cluster: Cluster):
        for number in (7, 8):
            await cluster.proposer(number).elect()
        await asyncio.sleep(5)
        events = cluster.backend.events()
        votes = [
            (e.node, e.fields["term"], e.fields["proposer"]) for e in events if e.kind == "vote"
        ]
        assert sorted(votes) == [(name, t, t + 6) for name in cluster.names for t in (1, 2)]
        elected = [(e.fields["term"], e.fields["proposer"]) for e in events if e.kind == "elected"]
        assert elected in ([(1, 7), (2, 8)], [])
        names = {e.fields["name"] for e in events if e.kind == "lsn"}
        silent = {"removed_lsn", "last_record_lsn", "disk_consistent_lsn"}
        assert "flush_lsn" in names
        assert not names & silent, "nothing is removed, and this is no pageserver"

    run_cluster(story)
