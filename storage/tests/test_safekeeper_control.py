"""The control file: everything survives, nothing damaged is believed."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from sim import SimLoop
from sim.disk import SimDisk
from sim.inode import Loss
from sim.run import run_on
from storage.consensus.term_history import TermHistory, TermSwitch
from storage.errors import CorruptData, DiskError
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn
from storage.safekeeper.control import ControlFile, decode_control, encode_control
from storage.safekeeper.control_state import ControlState, TimelineIdentity
from storage.wal.format import crc32c

IDENTITY = TimelineIdentity(
    TenantId("a" * 32), TimelineId("b" * 32), Lsn(64), 1 << 63, 18, 1 << 24, ("sk0:5454", "x:1")
)
CONTROL = ControlState(
    identity=IDENTITY,
    term=(1 << 64) - 1,
    term_history=TermHistory((TermSwitch(0, Lsn(64)), TermSwitch(9, Lsn(1 << 50)))),
    commit_lsn=Lsn(5),
    peer_horizon_lsn=Lsn(4),
    backup_lsn=Lsn(3),
    remote_consistent_lsn=Lsn(2),
    local_start_lsn=Lsn(1),
)


def test_every_field_survives():
    assert decode_control(encode_control(CONTROL), "f") == CONTROL


def test_every_flipped_bit_is_noticed():
    data = encode_control(CONTROL)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(CorruptData, match="dir/f"):
            decode_control(bytes(damaged), "dir/f")


def test_every_shorter_file_and_a_longer_one_are_refused():
    data = encode_control(CONTROL)
    for length in range(len(data)):
        with pytest.raises(CorruptData):
            decode_control(data[:length], "f")
    with pytest.raises(CorruptData):
        decode_control(data + b" ", "f")


def test_another_version_and_a_senseless_content_are_refused():
    data = encode_control(CONTROL)
    with pytest.raises(CorruptData, match="format version 2; this node reads 1"):
        decode_control(data[:8] + struct.pack(">I", 2) + data[12:], "f")
    payload = b'{"term": 3}'
    header = struct.pack(">8sIII", b"SWALLCTL", 1, len(payload), crc32c(payload))
    with pytest.raises(CorruptData, match="makes no sense"):
        decode_control(header + payload, "f")


@pytest.mark.parametrize("seed", range(30))
def test_a_crash_at_any_point_leaves_the_old_or_the_new_state(seed):
    loop = SimLoop(seed)

    async def main():
        disk = SimDisk(loop, loop.seeds.child("disk"))
        view = disk.view()
        await view.mkdir("t")
        await view.sync_dir("")
        states = [replace(CONTROL, term=term) for term in range(2)]
        file = ControlFile(view, "t", states[0])
        await file.save(states[0])
        saving = loop.create_task(file.save(states[1]))
        await _until_or_after(loop, saving, loop.seeds.child("when").uniform(0, 0.003))
        done = saving.done()
        saving.cancel()
        disk.crash_host(Loss.RANDOM)
        found = (await ControlFile.load(disk.view(), "t")).saved
        assert found in states
        assert found == states[1] or not done

    run_on(loop, main)


async def _until_or_after(loop, task, delay_s):
    timer = loop.create_future()
    loop.call_later(delay_s, timer.set_result, None)
    await timer


def test_terms_and_commits_never_go_back():
    loop = SimLoop(0)

    async def main():
        view = SimDisk(loop, loop.seeds.child("disk")).view()
        await view.mkdir("t")
        file = ControlFile(view, "t", CONTROL)
        with pytest.raises(AssertionError):
            await file.save(replace(CONTROL, term=1))
        with pytest.raises(AssertionError):
            await file.save(replace(CONTROL, commit_lsn=Lsn(4)))

    run_on(loop, main)


def test_a_failed_save_is_not_believed():
    loop = SimLoop(0)

    async def main():
        from sim.disk_faults import DiskFault, DiskOperation

        disk = SimDisk(loop, loop.seeds.child("disk"))
        view = disk.view()
        await view.mkdir("t")
        file = ControlFile(view, "t", replace(CONTROL, term=1))
        disk.arm(DiskFault.EIO, DiskOperation.FSYNC)
        with pytest.raises(DiskError):
            await file.save(CONTROL)
        assert file.saved.term == 1

    run_on(loop, main)
