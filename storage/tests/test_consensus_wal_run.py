"""A run of WAL behaves like one string of bytes that is only ever cut between pieces."""

from __future__ import annotations

import random

import pytest

from storage.consensus.wal_run import WalRun
from storage.lsn import Lsn


@pytest.mark.parametrize("seed", range(20))
def test_against_a_plain_string(seed):
    chance = random.Random(seed)
    run, whole, begin, borders = WalRun(Lsn(1000)), b"", 1000, [1000]
    for _ in range(200):
        if chance.random() < 0.6:
            piece = chance.randbytes(chance.randint(1, 40))
            run.append(run.end_lsn, piece)
            whole += piece
            borders.append(1000 + len(whole))
        elif chance.random() < 0.3:
            lsn = chance.randint(begin, int(run.end_lsn))
            run.forget(Lsn(lsn))
            begin = max(b for b in borders if b <= max(lsn, begin))
        assert run.begin_lsn == begin
        assert len(run) == run.end_lsn - begin
        low, high = sorted(chance.randint(begin, int(run.end_lsn)) for _ in range(2))
        assert run.read(Lsn(low), Lsn(high)) == whole[low - 1000 : high - 1000]
        limit = chance.randint(1, 100)
        taken = run.take(Lsn(low), limit)
        assert whole[low - 1000 :].startswith(taken)
        assert low + len(taken) in borders or not taken
        fitting = [b for b in borders if low < b <= low + limit]
        beyond = [b for b in borders if b > low]
        expected = fitting[-1] if fitting else beyond[0] if beyond else low
        assert low + len(taken) == expected


def test_gaps_and_empty_pieces_are_defects():
    run = WalRun(Lsn(8))
    with pytest.raises(AssertionError):
        run.append(Lsn(16), b"x")
    with pytest.raises(AssertionError):
        run.append(Lsn(8), b"")
    with pytest.raises(AssertionError):
        run.take(Lsn(7), 10)
