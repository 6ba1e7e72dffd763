"""The whole system as processes, with an unmodified PostgreSQL."""

import asyncio

import pytest

from harness.errors import CheckFailed, NotYet
from harness.topology import Topology
from harness.verdict import RunSettings, Verdict
from real.postgres.pgbench import check_sums
from real.runner import RealRunner


@pytest.fixture(scope="module")
def runner():
    runner = RealRunner()
    yield runner
    runner.close()


def run(runner, scenario, compute="postgres"):
    result = runner.run(scenario, RunSettings("real", compute, 0, "fifo"))
    if result.error is not None:
        raise result.error
    assert result.verdict is Verdict.PASSED
    return result


def test_record_without_a_page_image_raises_an_alarm_and_never_goes_unnoticed(runner):
    """Any superuser can switch images off for a session; pages would silently be stale."""

    async def scenario(world):
        world.expect_log("without an image of it", reason="images are switched off on purpose")
        cluster = await world.start(Topology())
        endpoint = await cluster.endpoint("main")
        await endpoint.put(1, "counts as a commit")
        await endpoint.sql("create table plain (id int)")
        for _ in range(2):
            await endpoint.sql("set wal_consistency_checking = ''; insert into plain values (1)")

        async def broken():
            state = (await cluster.pageserver(0).timeline(endpoint.timeline)).state
            if state != "Broken":
                raise NotYet(f"the timeline is {state}")

        await world.eventually(broken)

    result = run(runner, scenario)
    alarms = [line for line in result.evidence.logs if "without an image of it" in line.text]
    assert {line.level for line in alarms} == {"ERROR"}


def test_sums_that_differ_and_missing_transactions_are_told():
    class Server:
        def __init__(self, *row):
            self.row = row

        async def sql(self, statement):
            return [self.row]

    assert asyncio.run(check_sums(Server("7", "7", "7", "7", "3"), 2)) == 3
    with pytest.raises(CheckFailed, match=r"sums of pgbench differ: .*'branches': '8'"):
        asyncio.run(check_sums(Server("7", "7", "8", "7", "3"), 3))
    with pytest.raises(CheckFailed, match="has 3 rows, 4 transactions were acknowledged"):
        asyncio.run(check_sums(Server("7", "7", "7", "7", "3"), 4))
