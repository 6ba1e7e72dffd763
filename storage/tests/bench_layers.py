"""What pages, compaction and garbage collection cost: ``python -m storage.tests.bench_layers``.

Prints one JSON line. Pages are read through files, without a page cache; compaction and garbage
collection are measured with layers of one size and ten times as many of them. Times are CPU
seconds of this process; disk and bucket are simulated.
"""

from __future__ import annotations

import json
import random
from statistics import quantiles
from time import process_time

from storage.lsn import Lsn
from storage.pageserver.garbage import garbage
from storage.pageserver.keys import Key
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.retention import RetentionOptions
from storage.pageserver.timeline import Timeline
from storage.tests.pageserver_world import (
    TENANT,
    TIMELINE,
    KvHistory,
    Rig,
    flush,
    ingest,
    kv_key,
    play,
)

READS = 2000
_now_s = process_time
"""Taken before the simulation closes the door to real clocks."""


class Named:
    """A layer that is only a name."""

    def __init__(self, name: LayerName) -> None:
        self.name = name


def layers_of(count: int) -> list[Named]:
    """Slices of history over ten key ranges, each pictured at its end."""
    found = []
    for number in range(count // 20):
        start, end = Lsn(number * 100 + 1), Lsn(number * 100 + 101)
        for piece in range(10):
            first, last = (Key(0, 0, 0, 0, 0, piece * 100 + at) for at in (0, 99))
            found.append(Named(LayerName(LayerKind.DELTA_1, first, last, start, end, 1)))
            found.append(Named(LayerName(LayerKind.IMAGE, first, last, Lsn(end - 1), end, 1)))
    return found


def measure_garbage(results: dict[str, float]) -> None:
    """The decision alone, with three branch points."""
    for count in (1000, 10_000):
        layers = layers_of(count)
        top = layers[-1].name.end_lsn
        started_s = _now_s()
        gone = garbage(layers, top, [Lsn(top // 4), Lsn(top // 2), Lsn(3 * top // 4)])
        results[f"garbage_of_{count}_layers_ms"] = (_now_s() - started_s) * 1e3
        assert len(gone) > count // 2


async def measure_depth(rig: Rig, timeline: Timeline, results: dict[str, float]) -> None:
    """Pages that are an image, or an image and so many deltas, each read from files."""
    assert rig.environment.pages.get((0, kv_key(0))) is None
    history = KvHistory()
    history.fill(4000, keys=640, seed=1)
    await ingest(timeline, history)
    await flush(timeline)
    chance = random.Random(1)
    by_depth: dict[str, list[tuple[int, Lsn]]] = {"image": [], "deltas_1_to_15": []}
    for block, versions in history.versions.items():
        for number, (lsn, _) in enumerate(versions, start=1):
            by_depth["image" if number % 16 == 0 else "deltas_1_to_15"].append((block, lsn))
    for name, points in by_depth.items():
        times_us = []
        for block, lsn in chance.choices(points, k=READS):
            started_s = _now_s()
            await timeline.get(kv_key(block), lsn)
            times_us.append((_now_s() - started_s) * 1e6)
        cuts = quantiles(times_us, n=100)
        results[f"page_{name}_p50_us"], results[f"page_{name}_p99_us"] = cuts[49], cuts[98]


async def measure_upkeep(rig: Rig, flushes: int) -> dict[str, float]:
    """Merging so many flushes of one size, picturing them, and collecting what that leaves."""
    tenant = rig.tenants.get(TENANT)
    timeline = tenant.timeline(TIMELINE)
    history = KvHistory()
    for number in range(flushes):
        history.fill(300, keys=3000, seed=number)
        await ingest(timeline, history)
        await flush(timeline)
    started_s = _now_s()
    await tenant.compactors[TIMELINE].compact()
    compacted_s = _now_s()
    done = await tenant.collectors[TIMELINE].collect(RetentionOptions(0, 0.0))
    collected_s = _now_s()
    assert done.layers_removed, "nothing was garbage"
    return {
        f"compaction_of_{flushes}_flushes_s": compacted_s - started_s,
        f"gc_after_{flushes}_flushes_s": collected_s - compacted_s,
    }


def main() -> None:
    """Run the measurements once."""
    results: dict[str, float] = {}
    measure_garbage(results)

    async def depth(rig: Rig) -> None:
        await measure_depth(rig, await rig.timeline(), results)

    play(depth, checkpoint_distance=1 << 30, page_cache_size=0)
    for flushes in (5, 50):

        async def upkeep(rig: Rig, flushes: int = flushes) -> None:
            await rig.timeline()
            results.update(await measure_upkeep(rig, flushes))

        play(upkeep, compaction_threshold=2, image_creation_threshold=1, page_cache_size=0)
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


if __name__ == "__main__":
    main()
