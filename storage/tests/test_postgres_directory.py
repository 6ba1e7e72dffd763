"""Import and rebuild of data directories: the one inverts the other, and unfit ones are refused."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import BadRequest, NotFound
from storage.lsn import Lsn
from storage.pageserver.keys import Relation
from storage.pageserver.postgres import paths
from storage.pageserver.postgres.checksum import has_right_checksum, with_checksum
from storage.pageserver.postgres.control import CHECKPOINT, ControlFile
from storage.pageserver.postgres.import_directory import (
    CHECKPOINT_RECORD_SIZE,
    end_of_checkpoint,
)
from storage.pageserver.postgres.tar_stream import TarReader
from storage.tests.postgres_store import VersionStore
from storage.tests.test_postgres_control import control_file
from storage.wal.format import PAGE_SIZE, record_end
from storage.wal.reader import WalReader
from storage.wal.record import decode

MIB = 1 << 20
PAGE = bytes(12) + b"\x20\x00\x00\x20" + bytes(PAGE_SIZE - 16)


def files(pg_version: int = 15, **control: int) -> dict[str, bytes]:
    """A small data directory."""
    twophase = "pg_twophase/00000000000003E7" if pg_version >= 17 else "pg_twophase/000003E7"
    return {
        "PG_VERSION": f"{pg_version}\n".encode(),
        "postgresql.conf": b"port = 1\n",
        "pg_hba.conf": b"",
        "base/1/PG_VERSION": f"{pg_version}\n".encode(),
        "base/1/pg_filenode.map": b"m" * 512,
        "base/1/1259": PAGE + bytes(PAGE_SIZE) + PAGE,
        "base/1/1259_vm": PAGE,
        "base/1/1259_fsm": PAGE,
        "base/1/2000": b"",
        "base/1/3000_init": PAGE,
        "base/1/3000": PAGE * 5,
        "base/1/t3_77": PAGE,
        "base/1/pg_internal.init": b"cache",
        "global/1260": PAGE * 2,
        "global/pg_filenode.map": b"g" * 512,
        "pg_tblspc/900/PG_15_202209061/1/4000": PAGE,
        "pg_xact/0000": bytes(range(256)) * 32,
        "pg_multixact/offsets/0000": bytes(PAGE_SIZE),
        "pg_multixact/members/0000": bytes(PAGE_SIZE),
        twophase: b"prepared",
        "pg_wal/000000010000000000000001": b"wal",
        "pg_stat/pgstat.stat": b"numbers",
        "global/pg_control": control_file(pg_version, wal_segment_size=MIB, **control),
    }


def archive(content: dict[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name in ("./base", "./base/1", "./base/55", "./pg_tblspc", "./pg_tblspc/900"):
            directory = tarfile.TarInfo(name)
            directory.type = tarfile.DIRTYPE
            tar.addfile(directory)
        for name, data in content.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


async def chunks(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def import_all(content: dict[str, bytes], pg_version: int = 15) -> VersionStore:
    control = ControlFile(content["global/pg_control"], pg_version)
    store = VersionStore(pg_version)
    lsn = end_of_checkpoint(control)
    asyncio.run(store.import_directory(chunks(archive(content)), lsn))
    return store


def unpack(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            member.name: content.read()
            for member in tar
            if (content := tar.extractfile(member)) is not None
        }


def rebuild(store: VersionStore, lsn: Lsn | None = None) -> dict[str, bytes]:
    return unpack(asyncio.run(store.build(store.last_record_lsn if lsn is None else lsn)))


@pytest.mark.parametrize("pg_version", [15, 16, 18])
def test_rebuilt_right_after_import_it_is_the_same_directory(pg_version: int) -> None:
    content = files(pg_version)
    built = rebuild(import_all(content, pg_version))
    lost = {"base/1/1259_fsm", "base/1/t3_77", "base/1/pg_internal.init", "pg_stat/pgstat.stat"}
    changed = {"base/1/3000", "global/pg_control", "pg_wal/000000010000000000000001"}
    moved = {"pg_tblspc/900/PG_15_202209061/1/4000"} if pg_version != 15 else set()
    for name in content.keys() - lost - changed - moved:
        assert built[name] == content[name], name
    assert not lost & built.keys()
    assert built["base/1/3000"] == content["base/1/3000_init"]
    assert len(built) == len(content) - len(lost) + 2  # pg_ident.conf, postgresql.auto.conf


def test_rebuilt_directory_can_be_imported_again() -> None:
    first = import_all(files())
    built = rebuild(first)
    again = rebuild(import_all(built))
    different = {name for name in built if built[name] != again.get(name)}
    assert different == {"global/pg_control", "pg_wal/000000010000000000000010"}


def test_directories_are_private_and_complete() -> None:
    store = import_all(files())
    with tarfile.open(fileobj=io.BytesIO(asyncio.run(store.build(store.last_record_lsn)))) as tar:
        members = {member.name: member for member in tar}
    for path in (*paths.DIRECTORIES, "base/1", "base/55", "pg_tblspc/900"):
        assert members[path].isdir()
        assert members[path].mode == 0o700
    assert {member.mode for member in members.values() if member.isfile()} == {0o600}
    names = list(members)
    assert all(names.index(name.rsplit("/", 1)[0]) < names.index(name)
               for name in names if "/" in name)  # fmt: skip


@pytest.mark.parametrize("offset", [40, 8192 - 120, 8192 - 8, MIB - 64, MIB - 120, MIB])
def test_control_file_and_wal_agree_on_the_synthetic_checkpoint(offset: int) -> None:
    """The import's own checkpoint ends at various places; the new one follows it there."""
    start = 16 * MIB + offset
    store = import_all(files(checkpoint_lsn=start))
    lsn = store.last_record_lsn
    built = rebuild(store)
    control = ControlFile.load(built["global/pg_control"], 15)
    segments = sorted(name for name in built if name.startswith("pg_wal/"))
    assert all(len(built[name]) == MIB for name in segments)
    first = int(segments[0][-8:], 16) * MIB
    wal = b"".join(built[name] for name in segments)
    reader = WalReader(lsn, 15, MIB, 4711, check_prev=Lsn(start))
    end = record_end(control.checkpoint_lsn, CHECKPOINT_RECORD_SIZE, MIB)
    reader.feed(wal[lsn - first : end - first])
    (raw,) = reader.records()
    record = decode(raw.raw, raw.lsn, raw.end_lsn, 15)
    assert raw.lsn == control.checkpoint_lsn
    assert (record.rmid, record.info, len(raw.raw)) == (0, 0, CHECKPOINT_RECORD_SIZE)
    assert record.main_data == control.checkpoint.pack()
    assert control.checkpoint.redo == raw.lsn
    assert control["state"] == 1
    assert set(wal[end - first :]) <= {0}


def test_pages_get_the_checksums_the_cluster_wants() -> None:
    content = files(data_checksum_version=1)
    for name in ("base/1/1259", "base/1/3000", "global/1260"):
        pages = [content[name][at : at + PAGE_SIZE] for at in range(0, len(content[name]), 8192)]
        content[name] = b"".join(with_checksum(page, block) for block, page in enumerate(pages))
    for name in ("base/1/1259_vm", "base/1/3000_init", "pg_tblspc/900/PG_15_202209061/1/4000"):
        content[name] = with_checksum(PAGE, 0)
    store = import_all(content)
    relation = Relation(1663, 1, 1259, 0)
    page = asyncio.run(store.directory(store.last_record_lsn).relation_block(relation, 2))
    assert has_right_checksum(page, 2)
    assert rebuild(store)["base/1/1259"] == content["base/1/1259"]
    content["base/1/1259"] = PAGE * 3
    with pytest.raises(BadRequest, match=r"block 0 of 1663/1/1259\.0 does not match"):
        import_all(content)


def test_commit_log_reaches_to_the_next_xid() -> None:
    content = files()
    store = import_all(content)

    async def jump() -> None:
        store.modification.begin(store.last_record_lsn, Lsn(store.last_record_lsn + 64))
        data = await store.modification.directory.checkpoint()
        assert data is not None
        fields = list(CHECKPOINT.unpack(data))
        fields[5] = (1 << 20) + 40_000
        store.modification.put_checkpoint(CHECKPOINT.pack(*fields))
        store.modification.commit()

    asyncio.run(jump())
    built = rebuild(store)
    assert built["pg_xact/0000"] == content["pg_xact/0000"]
    assert built["pg_xact/0001"] == bytes(2 * PAGE_SIZE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (files(state=6), r"not shut down \(state 6"),
        (files(track_commit_timestamp=1), "track_commit_timestamp is on"),
        (files(block_size=4096), "block size 4096"),
        (files(16) | {"PG_VERSION": b"14\n"}, "version 14, not 15"),
        (files() | {"base/1/1259": b"x" * 100}, "base/1/1259 has 100 bytes"),
        (files() | {"backup_label": b"START"}, "online backup"),
    ],
)
def test_unfit_directories_are_refused(content: dict[str, bytes], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        import_all(content)


def test_archive_without_control_file_is_refused() -> None:
    store = VersionStore(15)
    content = files()
    del content["global/pg_control"]
    with pytest.raises(BadRequest, match="no global/pg_control"):
        asyncio.run(store.import_directory(chunks(archive(content)), Lsn(0x1000)))
    assert store.versions == {}


def test_import_lsn_must_be_the_end_of_the_checkpoint() -> None:
    store = VersionStore(15)
    with pytest.raises(BadRequest, match=r"import at 0/1000, but WAL continues at 0/10000A0"):
        asyncio.run(store.import_directory(chunks(archive(files())), Lsn(0x1000)))


def test_linked_tablespace_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("./pg_tblspc/900")
        link.type, link.linkname = tarfile.SYMTYPE, "/elsewhere"
        tar.addfile(link)
    with pytest.raises(BadRequest, match="pg_tblspc/900 is a symbolic link"):
        asyncio.run(VersionStore(15).import_directory(chunks(out.getvalue()), Lsn(0x1000)))


def test_nothing_can_be_built_where_nothing_was_imported() -> None:
    store = VersionStore(15)
    store.record_starts[Lsn(0x1000)] = Lsn(0)
    with pytest.raises(NotFound, match="none was imported"):
        asyncio.run(store.build(Lsn(0x1000)))


async def read_tar(data: bytes, size: int) -> dict[str, bytes]:
    reader = TarReader(chunks(data, size))
    return {entry.path: await reader.read(1 << 30) async for entry in reader.entries()}


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text("abcdefgh/é", max_size=180).map(
            lambda name: "d/x" + re.sub("/+", "/", name).rstrip("/")
        ),
        st.binary(max_size=1200),
        max_size=5,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(40, 2000),
)  # fmt: skip
def test_archives_are_read_in_any_chunks(content: dict[str, bytes], kind: int, size: int) -> None:
    found = asyncio.run(read_tar(archive(content, kind), size))
    assert {name: data for name, data in found.items() if name.startswith("d/")} == content


@pytest.mark.parametrize("cut", [100, 512 * 6, 512 * 6 + 100])
def test_archive_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(BadRequest, match="bytes early"):
        asyncio.run(read_tar(archive(files())[:cut], 1000))


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(BadRequest, match="uncompressed tar"):
        asyncio.run(read_tar(b"\x1f\x8b" + bytes(range(1, 255)) * 10, 1000))


def test_relations_beyond_one_file_are_split_and_joined() -> None:
    assert paths.relation_name(Relation(1663, 5, 77, 2), 3) == "77_vm.3"
    file = paths.parse_database_file("base/5/77_vm.3")
    assert file is not None
    assert paths.parse_relation_file(file) == paths.RelationFile(Relation(1663, 5, 77, 2), 3)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("global/1260", (1664, 0, "1260")),
        ("base/5/77", (1663, 5, "77")),
        ("pg_tblspc/9/PG_15_1/5/77", (9, 5, "77")),
        ("base/5/dir/77", None),
        ("base/pgsql_tmp/77", None),
        ("pg_wal/77", None),
    ],
)
def test_paths_of_database_files(path: str, found: tuple[int, int, str] | None) -> None:
    assert paths.parse_database_file(path) == found
