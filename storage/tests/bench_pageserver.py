"""Speed of ingest and reads below the front ends: ``python -m storage.tests.bench_pageserver``.

Prints one JSON line; times are CPU seconds of this process, the disk and the bucket are simulated.
"""

from __future__ import annotations

import json
import random
from time import process_time

from storage.lsn import Lsn
from storage.pageserver.ingest import WalIngest
from storage.pageserver.read_view import ReadPoint, read_view
from storage.tests.pageserver_world import (
    KV,
    SEGMENT_SIZE,
    START,
    KvHistory,
    Rig,
    flush,
    kv_key,
    play,
)
from storage.wal.reader import WalReader

RECORDS = 30_000
READS = 10_000
CHUNK = 128 * 1024

_now_s = process_time
"""Taken before the simulation closes the door to real clocks."""


async def measure(rig: Rig) -> None:
    """Ingest, then read the newest, older and flushed versions of random pages."""
    history = KvHistory()
    history.fill(RECORDS, keys=20_000)
    timeline = await rig.timeline()
    results: dict[str, float] = {}

    ingestion = WalIngest(timeline, timeline.environment.postgres)
    reader = WalReader(START, 15, SEGMENT_SIZE)
    started_s = _now_s()
    for offset in range(0, len(history.wal), CHUNK):
        reader.feed(history.wal[offset : offset + CHUNK])
        for raw in reader.records():
            await ingestion.ingest(raw)
        timeline.finish_batch()
    results["ingest_records_per_s"] = RECORDS / (_now_s() - started_s)

    generator = random.Random(1)
    blocks = [generator.choice(list(history.versions)) for _ in range(READS)]
    started_s = _now_s()
    for block in blocks:
        async with read_view(timeline, ReadPoint()) as view:
            await view.directory.relation_block(KV, block)
    results["latest_page_us"] = (_now_s() - started_s) / READS * 1e6

    lsns = [Lsn(generator.choice(history.ends)) for _ in range(READS)]
    for name in ("older_page_memory_us", "older_page_file_us"):
        started_s = _now_s()
        for block, lsn in zip(blocks, lsns, strict=True):
            await timeline.get(kv_key(block), lsn)
        results[name] = (_now_s() - started_s) / READS * 1e6
        await flush(timeline)
    print(json.dumps({name: round(value, 1) for name, value in results.items()}))


def main() -> None:
    """Run the measurement once."""
    # No page cache: every read pays for its reconstruction.
    play(measure, checkpoint_distance=1 << 30, page_cache_size=0)


if __name__ == "__main__":
    main()
