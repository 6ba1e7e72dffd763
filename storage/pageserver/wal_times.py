"""When which WAL was there: samples of (wall time, last_record_lsn), kept in the index.

A sample says that everything up to its LSN is older than its time. That is all retention by time
needs, it survives restarts and migration, and what no sample covers counts as new (BUGBANK
``gc-horizon-pitr-not-min``: unknown time means keep). Both columns only grow; a wall clock that
went back adds nothing until it has caught up.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from storage.lsn import Lsn

SAMPLES_MAX = 256


class Sample(NamedTuple):
    """At ``wall_us`` (microseconds since the Unix epoch) the WAL up to ``lsn`` was there."""

    wall_us: int
    lsn: Lsn


class WalTimes:
    """The samples of one timeline, oldest first."""

    def __init__(self, samples: tuple[Sample, ...] = ()) -> None:
        self._samples = list(samples)

    def samples(self) -> tuple[Sample, ...]:
        """All of them, to be stored."""
        return tuple(self._samples)

    def add(self, wall_us: int, lsn: Lsn) -> None:
        """Note where the WAL ends now; without effect unless both are larger than ever before."""
        if self._samples and (wall_us <= self._samples[-1].wall_us or lsn <= self._samples[-1].lsn):
            return
        self._samples.append(Sample(wall_us, lsn))
        if len(self._samples) > SAMPLES_MAX:
            self._thin()

    def _thin(self) -> None:
        """Drop the sample whose neighbours are closest in time, relative to its age.

        Old history gets coarse, new history stays fine; first and last are kept.
        """
        newest_us = self._samples[-1].wall_us
        _, position = min(
            (
                (after.wall_us - before.wall_us) / (newest_us - sample.wall_us + 1),
                number,
            )
            for number, (before, sample, after) in enumerate(
                zip(self._samples, self._samples[1:], self._samples[2:], strict=False), start=1
            )
        )
        del self._samples[position]

    def older_than(self, wall_us: int) -> Lsn | None:
        """The highest LSN up to which everything is known to be from ``wall_us`` or before."""
        position = bisect_right(self._samples, wall_us, key=lambda sample: sample.wall_us)
        return self._samples[position - 1].lsn if position else None
