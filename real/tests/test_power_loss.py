"""What a killed process's directory keeps when the machine below is said to have lost power."""

import random

import pytest

from harness.fault_ports import Loss
from real.fault_page import NodeFaults

SECTOR = b"s" * 512


def disk_of(tmp_path):
    """A node whose file ``f`` is durable, with syncs stalled and unsynced work on top."""
    faults = NodeFaults(tmp_path, random.Random(1))
    (faults.disk / "d").mkdir(parents=True)
    (faults.disk / "f").write_bytes(SECTOR * 4)
    (faults.disk / "d" / "old").write_bytes(b"old")
    faults.stall(syncs_only=True)
    with (faults.disk / "f").open("r+b") as file:
        file.seek(512)
        file.write(b"x" * 512)
        file.seek(1536)
        file.write(b"y" * 1024)
    (faults.disk / "d" / "new").write_bytes(b"new")
    (faults.disk / "d" / "old").rename(faults.disk / "d" / "renamed")
    return faults


def names(faults):
    return [str(p.relative_to(faults.disk)) for p in sorted(faults.disk.rglob("*")) if p.is_file()]


def test_everything_since_the_stall_is_lost(tmp_path):
    faults = disk_of(tmp_path)
    faults.lose_power(Loss.EVERYTHING)

    assert names(faults) == ["d/old", "f"]
    assert (faults.disk / "f").read_bytes() == SECTOR * 4
    assert faults.effects["bytes_lost"] == 512 + 1024 + len("new")
    assert faults.effects["names_lost"] == 2


def test_sizes_go_back_and_contents_stay(tmp_path):
    faults = disk_of(tmp_path)
    faults.lose_power(Loss.SIZES)

    assert (faults.disk / "f").read_bytes() == SECTOR + b"x" * 512 + SECTOR + b"y" * 512
    assert (faults.disk / "d" / "new").read_bytes() == b""
    assert (faults.disk / "d" / "renamed").read_bytes() == b"old"
    assert faults.effects["sizes_lost"] == 2


def test_names_go_back_and_contents_stay(tmp_path):
    faults = disk_of(tmp_path)
    faults.lose_power(Loss.NAMES)

    assert names(faults) == ["d/old", "f"]
    assert (faults.disk / "d" / "old").read_bytes() == b"old"
    assert (faults.disk / "f").read_bytes().endswith(b"y" * 1024)
    assert faults.effects["names_lost"] == 2


def test_only_the_last_write_is_torn_and_only_between_sectors(tmp_path):
    contents = set()
    for seed in range(20):
        (tmp_path / str(seed)).mkdir()
        faults = disk_of(tmp_path / str(seed))
        faults._generator.seed(seed)
        faults.lose_power(Loss.TORN)
        contents.add((faults.disk / "f").read_bytes())

    whole = SECTOR + b"x" * 512 + SECTOR
    assert {content[:1536] for content in contents} == {whole}
    kept = {(content[1536:2048][:1], content[2048:][:1]) for content in contents}
    assert kept == {(a, b) for a in (b"s", b"y") for b in (b"\0", b"y")}


@pytest.mark.parametrize("loss", [Loss.NOTHING, Loss.EVERYTHING])
def test_without_a_stall_nothing_is_lost(tmp_path, loss):
    faults = NodeFaults(tmp_path, random.Random(1))
    faults.disk.mkdir()
    (faults.disk / "f").write_bytes(b"written, never synced")
    faults.lose_power(loss)

    assert (faults.disk / "f").read_bytes() == b"written, never synced"


def test_the_copy_is_gone_after_the_stall(tmp_path):
    faults = disk_of(tmp_path)
    faults.resume()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "faults"]
