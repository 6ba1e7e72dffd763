"""The table of record kinds is whole: each PostgreSQL here names the same kinds, and no others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from storage.lsn import Lsn
from storage.pageserver.postgres.record_kinds import Handling, kind_of, kinds_of
from storage.tests.postgres_server import Installation, installations
from storage.wal.format import PAGE_MAGIC, SHORT_PAGE_HEADER, segment_name
from storage.wal.record import RecordSpec
from storage.wal.writer import WalWriter, WriterOptions

INSTALLATIONS = installations()
MIB = 1 << 20
MANAGERS = 22
XLOG, TRANSACTION, GENERIC = 0, 1, 20
SWITCH = 0x40
ROW = re.compile(r"(\w+)/(UNKNOWN \([0-9a-f]+\)|\S+) +\d+ \(", re.ASCII)


def operations(rmid: int) -> list[int]:
    """Every operation of a manager that ``pg_waldump`` counts apart: of XACT, the top bit is a
    flag."""
    return list(range(0, 0x80 if rmid == TRANSACTION else 0x100, 0x10))


def everything_there_could_be(version: int) -> bytes:
    """One record of each manager and operation; the switch comes last, at the segment's end."""
    writer = WalWriter(WriterOptions(version, MIB, 4711), Lsn(MIB), Lsn(0))
    for rmid in range(MANAGERS):
        for info in operations(rmid):
            if (rmid, info) != (XLOG, SWITCH):
                writer.append(RecordSpec(rmid, info, 0, b"\1\2"))
    writer.switch()
    writer.append(RecordSpec(XLOG, 0x20, 0))  # pg_waldump wants to see that the switch leads on.
    return writer.take()[1]


def known_to(installation: Installation, directory: Path) -> dict[tuple[int, int], str]:
    """What the installation's ``pg_waldump`` calls each (manager, operation) that it knows."""
    version = installation.version
    wal = everything_there_could_be(version).ljust(2 * MIB, b"\0")
    for segment in (1, 2):
        path = directory / segment_name(1, segment, MIB)
        path.write_bytes(wal[(segment - 1) * MIB : segment * MIB])
    start = Lsn(MIB + SHORT_PAGE_HEADER.size + 16)
    done = subprocess.run(
        [installation.tool("pg_waldump"), "-p", directory, "-s", str(start), "--stats=record"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = ROW.findall(done.stdout)
    codes = [(rmid, info) for rmid in range(MANAGERS) for info in operations(rmid)]
    assert len(rows) == len(codes), done.stdout + done.stderr
    return {
        code: f"{manager}/{name}"
        for code, (manager, name) in zip(codes, rows, strict=True)
        # Generic records have one operation only, but every other is called the same.
        if not name.startswith("UNKNOWN") and (code[0] != GENERIC or code[1] == 0)
    }


@pytest.mark.parametrize("version", PAGE_MAGIC)
def test_postgres_knows_no_other_kinds(version: int, tmp_path: Path) -> None:
    if version not in INSTALLATIONS:
        pytest.skip(f"no PostgreSQL {version} binaries here")
    listed = {(kind.rmid, kind.info): str(kind) for kind in kinds_of(version)}
    assert listed == known_to(INSTALLATIONS[version], tmp_path)


@pytest.mark.parametrize("version", PAGE_MAGIC)
def test_flags_do_not_hide_a_kind(version: int) -> None:
    for kind in kinds_of(version):
        assert kind_of(kind.rmid, kind.info, version) == kind
        assert kind_of(kind.rmid, kind.info | 0x03, version) == kind
    assert kind_of(TRANSACTION, 0x80, version) is kind_of(TRANSACTION, 0x00, version)
    assert kind_of(10, 0x90, version) is None
    assert kind_of(MANAGERS, 0x00, version) is None


def test_kinds_that_came_and_went() -> None:
    assert kind_of(XLOG, 0xE0, 16) is None
    assert kind_of(XLOG, 0xE0, 18) is not None
    assert str(kind_of(9, 0x10, 16)) == "Heap2/PRUNE"
    assert str(kind_of(9, 0x10, 18)) == "Heap2/PRUNE_ON_ACCESS"


def test_only_commit_timestamps_are_refused() -> None:
    for version in PAGE_MAGIC:
        refused = {kind.manager for kind in kinds_of(version) if kind.handling is Handling.REFUSED}
        assert refused == {"CommitTs"}
