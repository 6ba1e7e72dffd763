"""Which safekeeper a timeline should stream from: a pure decision over statuses and time.

The most advanced commit_lsn wins; a stream that works is kept. A candidate that failed may be
tried again when its backoff has run out, whatever the count of its failures, and progress resets
it (BUGBANK ``candidate-filtered-forever``). All times are seconds of the caller's clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.backoff import Backoff
from storage.pageserver.options import PageserverOptions


@dataclass
class Candidate:
    """A safekeeper known for the timeline. ``commit_lsn`` is the last one it announced."""

    address: str
    commit_lsn: Lsn
    backoff: Backoff
    retry_at_s: float = 0.0
    expires_at_s: float | None = None
    ended_at_lsn: Lsn | None = None
    idle: bool = False


@dataclass
class Stream:
    """The present stream: what it delivered and when."""

    address: str
    received_lsn: Lsn
    heard_at_s: float
    progress_at_s: float
    behind_since_s: float | None = None


class Candidates:
    """The known safekeepers of one timeline and the stream it has."""

    def __init__(self, options: PageserverOptions, entropy: random.Random) -> None:
        self._options = options
        self._entropy = entropy
        self._known: dict[str, Candidate] = {}
        self.stream: Stream | None = None

    def announce(
        self,
        address: str,
        commit_lsn: Lsn,
        *,
        expires_at_s: float | None = None,
        idle: bool = False,
    ) -> None:
        """A safekeeper says how far it has committed; without a new word it may expire.

        One for whom the timeline is ``idle`` wants nothing: it is asked only for WAL we lack, so
        that a restart does not connect everybody with everybody (SYSTEM.md F1).
        """
        known = self._known.get(address)
        if known is None:
            backoff = Backoff(self._entropy, delay_s_max=self._options.retry_delay_s_max)
            known = self._known[address] = Candidate(address, commit_lsn, backoff)
        known.commit_lsn = max(known.commit_lsn, commit_lsn)
        known.idle = idle
        known.expires_at_s = expires_at_s
        if expires_at_s is not None:
            known.ended_at_lsn = None

    def withdraw(self, address: str) -> None:
        """A safekeeper is not available for the timeline any more; a present stream goes on."""
        self._known.pop(address, None)

    def choose(self, position: Lsn, now_s: float) -> str | None:
        """The candidate to connect to now, if any; ``position`` is what we have."""
        best = self._best(position, now_s)
        return None if best is None else best.address

    def _best(self, position: Lsn, now_s: float) -> Candidate | None:
        best: Candidate | None = None
        for candidate in self._known.values():
            if not self._is_eligible(candidate, position, now_s):
                continue
            if best is None or candidate.commit_lsn > best.commit_lsn:
                best = candidate
        return best

    def _is_eligible(self, candidate: Candidate, position: Lsn, now_s: float) -> bool:
        if candidate.expires_at_s is not None and candidate.expires_at_s <= now_s:
            return False
        if candidate.retry_at_s > now_s:
            return False
        # Who ended the stream because we had everything has something new only when it says so.
        satisfied = candidate.idle or candidate.ended_at_lsn is not None
        return not satisfied or candidate.commit_lsn > position

    def next_retry_s(self, now_s: float) -> float | None:
        """When a candidate's backoff runs out next, or ``None`` if none is waiting."""
        waiting = [c.retry_at_s for c in self._known.values() if c.retry_at_s > now_s]
        return min(waiting, default=None)

    # The stream's life.

    def connected(self, address: str, position: Lsn, now_s: float) -> None:
        """A stream from ``position`` begins."""
        assert self.stream is None, "one stream at a time"
        self.stream = Stream(address, position, now_s, now_s)

    def heard(self, received_lsn: Lsn, now_s: float) -> None:
        """The stream said something; ``received_lsn`` is the end of what it delivered."""
        stream = self.stream
        assert stream is not None, "there is no stream"
        stream.heard_at_s = now_s
        if received_lsn > stream.received_lsn:
            stream.received_lsn = received_lsn
            stream.progress_at_s = now_s
            known = self._known.get(stream.address)
            if known is not None:
                known.backoff.reset()

    def not_read_until(self, now_s: float) -> None:
        """We did not listen: no silence, and no lag, is held against the safekeeper."""
        stream = self.stream
        assert stream is not None, "there is no stream"
        stream.heard_at_s = stream.progress_at_s = now_s
        stream.behind_since_s = None

    def disconnected(self, now_s: float, *, by_peer: bool = False) -> None:
        """The stream is over; ``by_peer`` if the safekeeper ended it in an orderly way."""
        stream, self.stream = self.stream, None
        assert stream is not None, "there is no stream"
        self._put_off(stream.address, now_s)
        known = self._known.get(stream.address)
        if known is not None and by_peer:
            known.ended_at_lsn = stream.received_lsn
            if known.expires_at_s is not None:
                self.withdraw(stream.address)

    def failed(self, address: str, now_s: float) -> None:
        """Connecting did not work."""
        self._put_off(address, now_s)

    def _put_off(self, address: str, now_s: float) -> None:
        known = self._known.get(address)
        if known is not None:
            known.retry_at_s = now_s + known.backoff.next_delay_s()

    def reason_to_leave(self, now_s: float) -> str | None:
        """Why the present stream should be given up now; ``None`` to keep it."""
        stream = self.stream
        assert stream is not None, "there is no stream"
        if now_s - stream.heard_at_s >= self._options.walreceiver_silence_timeout_s:
            return f"silent for {now_s - stream.heard_at_s:.1f} s"
        timeout_s = self._options.walreceiver_lag_timeout_s
        if now_s - stream.progress_at_s >= timeout_s and self._is_called(stream, now_s):
            return f"no WAL for {timeout_s} s, and another safekeeper calls"
        announced = max((c.commit_lsn for c in self._known.values()), default=INVALID_LSN)
        behind = announced - stream.received_lsn
        if behind <= 0:
            stream.behind_since_s = None
            return None
        if stream.behind_since_s is None:
            stream.behind_since_s = now_s
        if now_s - max(stream.progress_at_s, stream.behind_since_s) >= timeout_s:
            return f"no WAL for {timeout_s} s, {behind} bytes behind"
        if self._lags(stream, behind) and now_s - stream.behind_since_s >= timeout_s:
            return f"{behind} bytes behind for {timeout_s} s"
        return None

    def _is_called(self, stream: Stream, now_s: float) -> bool:
        """Whether a safekeeper that is not ours said lately that we lack WAL."""
        return any(
            c.expires_at_s is not None and c.expires_at_s > now_s and c.address != stream.address
            for c in self._known.values()
        )

    def _lags(self, stream: Stream, behind: int) -> bool:
        """Whether somebody else is ahead by more than a stream in progress explains."""
        own = self._known.get(stream.address)
        own_lsn = INVALID_LSN if own is None else own.commit_lsn
        others = max(
            (c.commit_lsn for c in self._known.values() if c.address != stream.address),
            default=INVALID_LSN,
        )
        return others > own_lsn and behind > self._options.walreceiver_lag_max
