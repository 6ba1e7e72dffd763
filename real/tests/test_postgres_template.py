import io
import subprocess
import tarfile
from concurrent.futures import ProcessPoolExecutor

import pytest

from harness.errors import HarnessError
from real.postgres import binaries, template
from real.postgres.untar import Untar
from real.postgres.wal_prefix import segment_file
from storage.errors import CorruptData
from storage.lsn import Lsn

MIB = template.MIB
FOUND = binaries.find_all()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A directory that the unprivileged user of the server can reach."""
    import shutil
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp(prefix="seawall-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.version)
@pytest.mark.parametrize("segment_mib", [1, 16])
def test_start_lsn_is_where_pg_waldump_finds_the_end(found, segment_mib, cache):
    made = template.template(found, segment_mib * MIB, cache)

    assert made.wal_segment_size == segment_mib * MIB
    assert made.pg_version == found.major
    segment = made.start_lsn - made.start_lsn % made.wal_segment_size
    command = [
        found.program("pg_waldump"),
        "-p",
        str(made.path / "pg_wal"),
        "-s",
        f"{Lsn(segment)}",
    ]
    dump = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "CHECKPOINT_SHUTDOWN" in dump.stdout.splitlines()[-1]
    assert f"invalid record length at {made.start_lsn}" in dump.stderr


def test_template_is_built_once_by_however_many(cache, tmp_path):
    with ProcessPoolExecutor(4) as pool:
        jobs = [
            pool.submit(template.template, FOUND[0], 2 * MIB, cache / "shared") for _ in range(4)
        ]
        made = [job.result() for job in jobs]
    assert len({(each.system_id, each.path) for each in made}) == 1


def test_segment_sizes_that_postgresql_lacks_are_refused(cache):
    with pytest.raises(HarnessError, match="cannot have WAL segments of 65536 bytes"):
        template.template(FOUND[0], 65536, cache)


def test_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="name another directory in SEAWALL_CACHE_DIR"):
        template.template(FOUND[0], MIB, tmp_path / "file")


@pytest.mark.parametrize("piece", [1 << 18, 511, 100_003])
def test_tar_comes_out_as_it_went_in(cache, tmp_path, piece):
    made = template.template(FOUND[0], MIB, cache)
    data = b"".join(template.tar(made))
    untar = Untar(tmp_path / "out", None)
    for start in range(0, len(data), piece):
        untar.feed(data[start : start + piece])
    untar.finish()

    def files(top):
        return {
            path.relative_to(top).as_posix(): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file()
        }

    expected, got = files(made.path), files(tmp_path / "out")
    missing = set(expected) - set(got)
    current = segment_file(made.start_lsn, MIB)
    assert got == {name: expected[name] for name in got}
    assert all(name.startswith("pg_wal/") and name > f"pg_wal/{current}" for name in missing)
    assert f"pg_wal/{current}" in got


def tar_of(name, kind=tarfile.REGTYPE, data=b"x"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../b"])
def test_names_outside_are_refused(tmp_path, name):
    with pytest.raises(CorruptData, match="is not taken"):
        Untar(tmp_path / "out", None).feed(tar_of(name))


def test_links_are_refused(tmp_path):
    with pytest.raises(CorruptData, match="is not taken"):
        Untar(tmp_path / "out", None).feed(tar_of("link", tarfile.SYMTYPE, b""))


def test_damaged_and_short_streams_are_refused(tmp_path):
    whole = tar_of("file", data=b"y" * 1000)
    with pytest.raises(CorruptData, match="bad tar header"):
        Untar(tmp_path / "a", None).feed(b"z" + whole[1:])
    short = Untar(tmp_path / "b", None)
    short.feed(whole[:1024])
    with pytest.raises(CorruptData, match="ended after 1 files, without its end"):
        short.finish()


def test_segment_file_names():
    assert segment_file(0x6007D0, MIB) == "000000010000000000000006"
    assert segment_file(0x1_0000_0000, 16 * MIB) == "000000010000000100000000"
    assert segment_file(0xFFFF_FFFF, 16 * MIB) == "0000000100000000000000FF"
