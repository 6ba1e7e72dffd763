"""What a simulated file holds: the page cache's content, and how to get back to the platter's.

The cache is one bytearray; what the platter has instead is kept as a journal of the writes and
truncates since the last sync, each with the bytes it replaced. So a write costs one slice, a sync
drops the journal, and only a crash pays for telling the two apart. The rules of loss:

* every unsynced write may survive, vanish, or be torn between 512-byte sectors;
* sizes survive up to some point in time, independently of the content; fdatasync keeps content
  but not sizes; a size that survived without its content shows zeros.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from harness.fault_ports import Loss as Loss

SECTOR_SIZE = 512
"""Bytes that a disk writes whole or not at all."""

_JOURNAL_LENGTH_MAX = 2048


_DEFINITE = (Loss.NOTHING, Loss.EVERYTHING, Loss.PREFIX, Loss.SUBSET)
_CONTENT_SURVIVES = frozenset({Loss.NOTHING, Loss.SIZES, Loss.NAMES})
_SIZES_SURVIVE = frozenset({Loss.NOTHING, Loss.TORN, Loss.NAMES})
_NO_SIZE_SURVIVES = frozenset({Loss.EVERYTHING, Loss.SIZES})


def drawn(loss: Loss, generator: random.Random) -> Loss:
    """This loss, or one of the definite ones if it is ``RANDOM``."""
    return generator.choice(_DEFINITE) if loss is Loss.RANDOM else loss


class _Change(NamedTuple):
    offset: int
    """Where the data went; for a truncate, the new size."""
    data: bytes | None
    """``None`` for a truncate."""
    replaced: bytes | bytearray
    old_size: int

    @property
    def new_size(self) -> int:
        if self.data is None:
            return self.offset
        return max(self.old_size, self.offset + len(self.data))


class Inode:
    """One file's content in the cache and on the platter; knows nothing of names or of time."""

    __slots__ = (
        "_cut", "_durable_size", "_first", "_forced", "_journal", "_platter",
        "cache", "freed", "handles", "linked",
    )  # fmt: skip

    def __init__(self, content: bytes = b"") -> None:
        self.cache = bytearray(content)
        self.handles = 0
        self.linked = True
        self.freed = False
        """Whether its space was given back: no name, and no process that has it open."""
        self._journal: list[_Change] = []
        self._first = 0  # number of the journal's first change, counted since creation
        self._forced = 0  # writes numbered below this are durable though still in the journal
        self._cut = 0  # truncates in the journal
        self._durable_size = len(content)
        self._platter: bytearray | None = None  # set once a failed sync made undoing impossible

    @property
    def mark(self) -> int:
        """The present moment, for :meth:`persist`: everything written before it."""
        return self._first + len(self._journal)

    @property
    def dirty_bytes(self) -> int:
        """Bytes of writes that a sync would have to carry to the platter."""
        return sum(len(change.data) for change in self._journal if change.data is not None)

    def write(self, offset: int, data: bytes) -> None:
        """Put ``data`` at ``offset``; a gap before it becomes zeros."""
        cache = self.cache
        old_size = len(cache)
        if offset > old_size:
            cache.extend(bytes(offset - old_size))
        end = offset + len(data)
        replaced = cache[offset:end]
        cache[offset:end] = data
        self._journal.append(_Change(offset, data, replaced, old_size))
        if len(self._journal) > _JOURNAL_LENGTH_MAX:
            # The kernel writes old dirty pages back by itself; unsynced data may be durable.
            self._settle(len(self._journal) // 2, sizes=True)

    def truncate(self, size: int) -> None:
        """Cut or zero-extend to ``size`` bytes."""
        cache = self.cache
        old_size = len(cache)
        if size == old_size:
            return
        tail = cache[size:]
        if size < old_size:
            del cache[size:]
        else:
            cache.extend(bytes(size - old_size))
        self._journal.append(_Change(size, None, tail, old_size))
        self._cut += 1

    def persist(self, mark: int, *, sizes: bool) -> None:
        """Make what was written before ``mark`` durable; with ``sizes``, the size then as well."""
        count = max(0, mark - self._first)
        assert count <= len(self._journal), f"mark {mark} lies in the future of {self.mark}"
        if sizes or not self._cut:
            self._settle(count, sizes=sizes)
        else:
            # A pending truncate must stay undoable, and with it all that followed it.
            self._forced = max(self._forced, mark)

    def fail_sync(self, mark: int, generator: random.Random) -> int:
        """A sync up to ``mark`` fails: part of it is durable, the rest will never be retried.

        So does Linux: pages are marked clean after the error, and the next fsync succeeds
        without them (the "fsyncgate" of 2018). Returns the bytes that will never be durable.
        """
        count = mark - self._first
        if count <= 0:
            return 0
        platter = self._base()
        lost = 0
        for number, change in enumerate(self._journal[:count], self._first):
            if number < self._forced or generator.random() < 0.5:
                _redo(platter, change)
            else:
                lost += len(change.data or b"")
        self._platter = platter
        del self._journal[:count]
        self._first = mark
        self._cut = sum(change.data is None for change in self._journal)
        return lost

    def crash(self, loss: Loss, generator: random.Random) -> int:
        """The host died: forget the cache, keep what ``loss`` leaves. Returns bytes lost."""
        if not self._journal and self._durable_size == len(self.cache) and self._platter is None:
            return 0
        loss = drawn(loss, generator)
        lost = 0
        survivors = self._surviving_sizes(loss, generator)
        size_at, size = survivors
        image = self._base()
        last_whole = _prefix_end(loss, len(self._journal), generator)
        for number, change in enumerate(self._journal):
            if change.data is None:
                if number < size_at:
                    del image[change.offset :]
                continue
            if self._first + number < self._forced:
                kept = True
            elif number == last_whole or loss is Loss.SUBSET:
                lost += _redo_torn(image, change, generator)
                continue
            else:
                kept = number < last_whole
            if kept:
                _redo(image, change)
            else:
                lost += len(change.data)
        lost += max(0, len(image) - size)
        del image[size:]
        image.extend(bytes(size - len(image)))
        self._become(image)
        return lost

    def rot(self, offset: int, bit: int) -> None:
        """Flip one bit of the content, in the cache and on the platter."""
        if not 0 <= offset < len(self.cache):
            raise ValueError(f"offset {offset} is outside the {len(self.cache)} bytes of the file")
        self.cache[offset] ^= 1 << bit
        if self._platter is not None and offset < len(self._platter):
            self._platter[offset] ^= 1 << bit

    def _become(self, image: bytearray) -> None:
        self.cache = image
        self._first += len(self._journal)
        self._journal = []
        self._cut = self._forced = 0
        self._durable_size = len(image)
        self._platter = None

    def _settle(self, count: int, *, sizes: bool) -> None:
        """Drop the journal's first ``count`` changes: they are on the platter now."""
        journal = self._journal
        if sizes:
            self._durable_size = (
                journal[count].old_size if count < len(journal) else len(self.cache)
            )
        if self._platter is not None:
            for change in journal[:count]:
                _redo(self._platter, change)
        if self._cut:
            self._cut -= sum(change.data is None for change in journal[:count])
        self._first += count
        if count == len(journal):
            journal.clear()
        else:
            del journal[:count]

    def _base(self) -> bytearray:
        """A copy of the platter without anything that is still in the journal."""
        if self._platter is not None:
            return bytearray(self._platter)
        image = bytearray(self.cache)
        for change in reversed(self._journal):
            if change.data is None and change.offset < change.old_size:
                image.extend(change.replaced)
            else:
                image[change.offset : change.offset + len(change.replaced)] = change.replaced
                del image[change.old_size :]
        return image

    def _surviving_sizes(self, loss: Loss, generator: random.Random) -> tuple[int, int]:
        """How many changes survive with their sizes, and the size that leaves."""
        journal = self._journal
        written_size = journal[0].old_size if journal else len(self.cache)
        if loss in _SIZES_SURVIVE:
            return len(journal), len(self.cache)
        if loss in _NO_SIZE_SURVIVES:
            return 0, self._durable_size
        low, high = sorted((self._durable_size, written_size))
        # Below zero: sizes that fdatasync left pending, from before the journal begins.
        count = generator.randint(-1 if low < high else 0, len(journal))
        if count < 0:
            return 0, generator.choice((self._durable_size, generator.randint(low, high)))
        return count, journal[count - 1].new_size if count else written_size


def _prefix_end(loss: Loss, length: int, generator: random.Random) -> int:
    """Number of the change that is torn; those before it survive, those after do not."""
    if loss in _CONTENT_SURVIVES:
        return length
    if loss is Loss.TORN:
        return length - 1
    return generator.randint(0, length) if loss is Loss.PREFIX else -1


def _redo(image: bytearray, change: _Change) -> None:
    if change.data is not None:
        if change.offset > len(image):
            image.extend(bytes(change.offset - len(image)))
        image[change.offset : change.offset + len(change.data)] = change.data
        return
    del image[change.offset :]
    image.extend(bytes(change.offset - len(image)))


def _redo_torn(image: bytearray, change: _Change, generator: random.Random) -> int:
    """Write the sectors of one change that a generator picks; returns the bytes left out."""
    assert change.data is not None
    begin, end = change.offset, change.offset + len(change.data)
    chance = generator.choice((0.0, 0.5, 1.0))
    lost = 0
    while begin < end:
        until = min(end, (begin // SECTOR_SIZE + 1) * SECTOR_SIZE)
        piece = change.data[begin - change.offset : until - change.offset]
        if generator.random() < chance:
            _redo(image, _Change(begin, piece, b"", 0))
        else:
            lost += len(piece)
        begin = until
    return lost
