"""Two writers at a time, dying hosts, broken links: what was acknowledged is there in the end."""

from __future__ import annotations

import pytest

from storage.tests.safekeeper_chaos import Chaos
from storage.tests.safekeeper_cluster import Cluster, run_cluster


@pytest.mark.parametrize(("seed", "members"), [(1, 3), (2, 3), (3, 3), (4, 5)])
def test_acknowledged_records_survive_chaos(seed, members):
    async def story(cluster: Cluster):
        chaos = Chaos(cluster, seed)
        await chaos.run(duration_s=25)
        assert chaos.faults > 15
        assert len(chaos.acknowledged) > 200

    run_cluster(story, seed=seed, count=members)
