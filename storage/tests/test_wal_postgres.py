"""Both ways with real PostgreSQL: we read all of its WAL, and ``pg_waldump`` reads all of ours."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.tests.postgres_server import ALL_IMAGES, Server, installations, scratch_directory
from storage.wal.encode import encode
from storage.wal.format import PAGE_SIZE, segment_name
from storage.wal.image import Compression
from storage.wal.reader import RawRecord, WalReader
from storage.wal.record import BlockRef, BlockSpec, RecordSpec, WalRecord, decode
from storage.wal.writer import WalWriter, WriterOptions

INSTALLATIONS = installations()
MIB = 1 << 20
PAGE_SIZE_AND_LAYOUT = (PAGE_SIZE | 4).to_bytes(2, "little")

pytestmark = pytest.mark.skipif(not INSTALLATIONS, reason="no PostgreSQL server binaries here")


@dataclass(frozen=True)
class Written:
    """What a server wrote; records from ``ready`` on were made under the settings of the test."""

    version: int
    segment_size: int
    start: Lsn
    data: bytes
    ready: Lsn
    end: Lsn
    dump: str
    images: dict[str, bytes]
    """By the name that ``pg_waldump --save-fullpage`` (16 and later) gives them."""


def make_wal(home: Path, version: int, segment_mib: int, *settings: str) -> Written:
    server = Server(INSTALLATIONS[version], home, "data")
    server.initdb(f"--wal-segsize={segment_mib}")
    with server.running("wal_keep_size=1GB", *settings):
        ready = server.sql("select pg_current_wal_insert_lsn()")
        server.pgbench("-i", "-q", "-s", "1")
        server.pgbench("-n", "-c", "2", "-t", "30")
        server.sql(
            "create table big(t text); insert into big select repeat(i::text, 600000)"
            " from generate_series(1,3) i; select pg_switch_wal(); checkpoint;"
        )
        server.sql(
            "begin; savepoint a; insert into big values('x'); savepoint b;"
            " insert into big values('y'); commit;"
        )
        flushed = server.sql("insert into big values ('z'); select pg_current_wal_flush_lsn()")
    wal = server.data / "pg_wal"
    segments = sorted(path for path in wal.iterdir() if re.fullmatch("[0-9A-F]{24}", path.name))
    size = segment_mib * MIB
    number = int(segments[0].name[8:16], 16) * (2**32 // size) + int(segments[0].name[16:], 16)
    data = b"".join(path.read_bytes() for path in segments)
    pages = home / "pages"
    save = [f"--save-fullpage={pages}"] if version >= 16 else []
    dump = server.run("pg_waldump", *save, str(segments[0]), str(segments[-1]), check=False)
    images = {path.name: path.read_bytes() for path in pages.iterdir()} if save else {}
    start, end = Lsn(number * size), Lsn.parse(flushed[0])
    return Written(version, size, start, data, Lsn.parse(ready[0]), end, dump, images)


def read_all(written: Written) -> tuple[list[RawRecord], CorruptData]:
    reader = WalReader.at_page(written.start, written.version, written.segment_size)
    for at in range(0, len(written.data), 100_003):
        reader.feed(written.data[at : at + 100_003])
    records = []
    with pytest.raises(CorruptData) as stopped:
        for record in reader.records():
            records.append(record)
    return records, stopped.value


@pytest.mark.parametrize(
    ("version", "segment_mib", "settings"),
    [
        (15, 1, (*ALL_IMAGES, "wal_compression=off")),
        (15, 16, ("wal_compression=lz4", *ALL_IMAGES)),
        (16, 1, ("wal_compression=pglz", *ALL_IMAGES)),
        (15, 4, ("wal_compression=zstd", *ALL_IMAGES)),
        (16, 4, ("wal_compression=off", *ALL_IMAGES)),
        (18, 16, ("wal_compression=pglz", *ALL_IMAGES)),
        (18, 2, ("wal_level=logical",)),
    ],
)
def test_every_record_of_a_real_server_is_read_as_pg_waldump_reads_it(
    version: int, segment_mib: int, settings: tuple[str, ...]
) -> None:
    if version not in INSTALLATIONS:
        pytest.skip(f"no PostgreSQL {version} binaries here")
    with scratch_directory() as home:
        written = make_wal(home, version, segment_mib, *settings)
    records, stopped = read_all(written)

    assert records[-1].end_lsn >= written.end
    assert str(records[-1].end_lsn) in str(stopped) or "page at" in str(stopped)
    theirs = re.findall(r"tx: +(\d+), lsn: (\w+/\w+), prev (\w+/\w+)", written.dump)
    decoded = [decode(record.raw, record.lsn, record.end_lsn, version) for record in records]
    ours = [(record.xid, record.lsn, record.prev_lsn) for record in decoded]
    assert ours == [(int(xid), Lsn.parse(lsn), Lsn.parse(prev)) for xid, lsn, prev in theirs]
    references = re.findall(
        r"blkref #\d+: rel (\d+)/(\d+)/(\d+) (?:fork (\w+) )?blk (\d+)", written.dump
    )
    assert [
        (str(ref.space), str(ref.database), str(ref.relation), str(ref.block))
        for record in decoded
        for ref in record.blocks
    ] == [(space, database, relation, block) for space, database, relation, _, block in references]
    images = image_references(decoded)
    assert len(images) > 300
    for _, block in images:
        assert block.image is not None
        assert block.image[18:20] == PAGE_SIZE_AND_LAYOUT or not any(block.image)
    if written.images:
        assert dict(map(saved_page, images)) == written.images
    ours_only = [record for record in decoded if record.lsn >= written.ready]
    has_all_images = all(block.image is not None for r in ours_only for block in r.blocks)
    assert has_all_images == (ALL_IMAGES[0] in settings)
    assert any(record.toplevel_xid for record in decoded) == ("wal_level=logical" in settings)


def image_references(records: list[WalRecord]) -> list[tuple[WalRecord, BlockRef]]:
    return [(record, block) for record in records for block in record.blocks if block.image]


def saved_page(reference: tuple[WalRecord, BlockRef]) -> tuple[str, bytes]:
    """The file name and content that ``pg_waldump --save-fullpage`` gives an image."""
    record, block = reference
    fork = ("main", "fsm", "vm", "init")[block.fork]
    lsn = f"{record.lsn >> 32:08X}-{record.lsn & 0xFFFFFFFF:08X}"
    relation = f"{block.space}.{block.database}.{block.relation}.{block.block}_{fork}"
    assert block.image is not None
    return f"00000001-{lsn}.{relation}", block.image


@dataclass(frozen=True)
class Ours:
    """WAL made by our writer, as segment files."""

    directory: Path
    first: str
    last: str
    written: list[tuple[Lsn, Lsn]]


def write_ours(directory: Path, version: int, segment_size: int) -> Ours:
    """Records of every shape, over three segments, one of them left by a switch."""
    writer = WalWriter(WriterOptions(version, segment_size, 4711), Lsn(5 * segment_size), Lsn(0))
    page = bytes(12) + b"\x40\x00\x00\x10" + bytes(48) + bytes(4032) + b"tuple data " * 400
    written = []
    for xid in range(400):
        image = page[:PAGE_SIZE].ljust(PAGE_SIZE, b"x") if xid % 3 == 0 else None
        method = (Compression.NONE, Compression.LZ4, Compression.ZSTD)[xid // 3 % 3]
        block = BlockSpec(
            0,
            1663,
            16384,
            16385,
            xid,
            image=image,
            data=b"d" * (xid % 50),
            will_init=xid % 2 == 0,
            compression=method,
        )
        other = BlockSpec(3, 1663, 16384, 16385, xid + 1, fork=2, data=b"e")
        main = bytes(xid * 37 % 9000)
        written.append(
            writer.append(RecordSpec(203, 0x10, xid + 3, main, (block, other), origin=7))
        )
    written.append(writer.switch())
    written.append(writer.append(RecordSpec(203, 0, 3, bytes(segment_size // 2))))
    begin, data = writer.take()
    names = []
    for at in range(0, len(data), segment_size):
        names.append(segment_name(1, (begin + at) // segment_size, segment_size))
        piece = data[at : at + segment_size].ljust(segment_size, b"\0")
        (directory / names[-1]).write_bytes(piece)
    return Ours(directory, names[0], names[-1], written)


@pytest.mark.parametrize("segment_mib", [1, 16])
@pytest.mark.parametrize("version", [15, 16, 18])
def test_pg_waldump_reads_what_we_write(version: int, segment_mib: int, tmp_path: Path) -> None:
    if version not in INSTALLATIONS:
        pytest.skip(f"no PostgreSQL {version} binaries here")
    ours = write_ours(tmp_path, version, segment_mib * MIB)
    start, end = ours.written[0][0], ours.written[-1][1]
    dump = subprocess.run(
        [INSTALLATIONS[version].tool("pg_waldump"), "-p", tmp_path, "-s", str(start),
         "-e", str(end)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert dump.stderr == ""
    assert dump.returncode == 0
    lsns = [Lsn.parse(text) for text in re.findall(r"lsn: (\w+/\w+)", dump.stdout)]
    assert lsns == [lsn for lsn, _ in ours.written]
    assert dump.stdout.count("custom203") == 401
    assert dump.stdout.count("SWITCH") == 1
    assert dump.stdout.count(" FPW") == 134


@pytest.mark.skipif(15 not in INSTALLATIONS, reason="no PostgreSQL 15 binaries here")
def test_pg_waldump_notices_damage_so_its_silence_means_something(tmp_path: Path) -> None:
    ours = write_ours(tmp_path, 15, MIB)
    path = tmp_path / ours.first
    data = bytearray(path.read_bytes())
    data[50_000] ^= 1
    path.write_bytes(data)
    dump = subprocess.run(
        [INSTALLATIONS[15].tool("pg_waldump"), path], capture_output=True, text=True, check=False
    )
    assert "error" in dump.stderr


def test_rewriting_a_real_servers_records_gives_its_bytes() -> None:
    """Our writer makes the very pages PostgreSQL made: same layout, same CRCs, same headers."""
    version = min(INSTALLATIONS)
    with scratch_directory() as home:
        written = make_wal(home, version, 1, "wal_compression=off", "full_page_writes=off")
    records, _ = read_all(written)
    decoded = [decode(record.raw, record.lsn, record.end_lsn, version) for record in records]
    checked = 0
    for record, raw in zip(decoded, (record.raw for record in records), strict=True):
        if any(block.image is not None for block in record.blocks):
            continue
        blocks = [
            BlockSpec(
                block.block_id,
                block.space,
                block.database,
                block.relation,
                block.block,
                block.fork,
                block.will_init,
                None,
                block.data,
            )
            for block in record.blocks
        ]
        spec = RecordSpec(record.rmid, record.info, record.xid, record.main_data, blocks)
        assert encode(spec, record.prev_lsn) == raw
        checked += 1
    assert checked > 500
