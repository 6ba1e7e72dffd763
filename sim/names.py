"""Names of a simulated disk: the directory tree as the kernel shows it, and as the platter has it.

Each creation, rename and unlink is one pending change until its directory is synced. A host crash
keeps or loses every pending change by itself, or a prefix of them, whatever their order was.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from sim.inode import Inode, Loss, drawn
from storage.errors import DiskError, FileAlreadyExists, FileMissing
from storage.ports import path_parts


class Directory:
    """Names in one directory: as seen now, and as they would be read back from the platter."""

    __slots__ = ("durable", "entries")

    def __init__(self) -> None:
        self.entries: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}


Node = Inode | Directory
_NAMES_SURVIVE = frozenset({Loss.NOTHING, Loss.TORN, Loss.SIZES})
_Key = tuple[Directory, str]
_Change = dict[_Key, Node | None]
"""The names that one operation sets together; ``None`` removes the name."""


class Names:
    """The tree of one disk. Methods take paths of ``storage.ports`` and raise its ``DiskError``."""

    def __init__(self) -> None:
        self.root = Directory()
        self._pending: list[tuple[int, _Change]] = []
        self.mark = 0
        """The present moment, for :meth:`sync`: how many changes were made so far."""

    def find(self, path: str) -> Node | None:
        """The file or directory at a path, or ``None``."""
        node: Node | None = self.root
        for part in path_parts(path):
            if not isinstance(node, Directory):
                return None
            node = node.entries.get(part)
        return node

    def file(self, path: str) -> Inode | None:
        """The file at a path, ``None`` if there is nothing; ``DiskError`` for a directory."""
        node = self.find(path)
        if isinstance(node, Directory):
            raise DiskError(f"{path!r} is a directory, not a file")
        return node

    def directory(self, path: str) -> Directory:
        """The directory at a path; ``FileMissing`` if there is none."""
        node = self.find(path)
        if not isinstance(node, Directory):
            raise FileMissing(f"there is no directory {path!r} on this disk")
        return node

    def create(self, path: str) -> Inode:
        """Give a new empty file the name; ``FileMissing`` if the directory is missing."""
        holder, name = self._place(path)
        assert name not in holder.entries, f"{path!r} is taken"
        inode = Inode()
        self._change({(holder, name): inode})
        return inode

    def unlink(self, path: str) -> Inode:
        """Remove a file's name and return the file."""
        holder, name = self._place(path)
        inode = self.file(path)
        if inode is None:
            raise FileMissing(f"there is no file {path!r} to unlink")
        self._change({(holder, name): None})
        inode.linked = False
        return inode

    def rename(self, source: str, target: str) -> Inode | None:
        """Move a file or directory; returns the file it replaced, if any."""
        node = self.find(source)
        if node is None:
            raise FileMissing(f"there is no {source!r} to rename to {target!r}")
        source_holder, source_name = self._place(source)
        target_holder, target_name = self._place(target)
        replaced = target_holder.entries.get(target_name)
        if node is replaced:
            return None
        if isinstance(replaced, Directory) or (
            replaced is not None and isinstance(node, Directory)
        ):
            raise DiskError(f"renaming {source!r} to {target!r} may only replace a file by a file")
        if isinstance(node, Directory) and path_parts(target)[: len(path_parts(source))] == (
            path_parts(source)
        ):
            raise DiskError(f"{source!r} cannot move into itself as {target!r}")
        self._change({(source_holder, source_name): None, (target_holder, target_name): node})
        if isinstance(replaced, Inode):
            replaced.linked = False
            return replaced
        return None

    def make_directory(self, path: str) -> None:
        """Create a directory and its missing parents."""
        holder = self.root
        for part in path_parts(path):
            node = holder.entries.get(part)
            if node is None:
                node = Directory()
                self._change({(holder, part): node})
            if not isinstance(node, Directory):
                raise FileAlreadyExists(f"{part!r} in {path!r} is a file, not a directory")
            holder = node

    def remove_tree(self, path: str) -> list[Inode]:
        """Remove a directory and all below it, leaf by leaf; returns the files that went."""
        node = self.find(path)
        if node is None:
            return []
        if not isinstance(node, Directory):
            raise DiskError(f"{path!r} is a file; rmtree removes directories")
        holder, name = self._place(path)
        removed = self._empty(node)
        self._change({(holder, name): None})
        return removed

    def sync(self, directory: Directory, mark: int) -> None:
        """Make the names that a directory got before ``mark`` durable, and what they built upon."""
        settled: list[_Change] = []
        kept: list[tuple[int, _Change]] = []
        touched: set[_Key] = set()
        for number, change in reversed(self._pending):
            if number < mark and any(key[0] is directory or key in touched for key in change):
                touched.update(change)
                settled.append(change)
            else:
                kept.append((number, change))
        for change in reversed(settled):
            _apply(change)
        self._pending = kept[::-1]

    def crash(self, loss: Loss, generator: random.Random) -> int:
        """The host died: fall back to the platter's names. Returns how many changes were lost."""
        loss = drawn(loss, generator)
        until = generator.randint(0, len(self._pending)) if loss is Loss.PREFIX else 0
        immovable: list[Node] = []
        lost = 0
        for index, (_, change) in enumerate(self._pending):
            moved = next((node for node in change.values() if node is not None), None)
            survives = (
                loss in _NAMES_SURVIVE
                or index < until
                or (loss is Loss.SUBSET and generator.random() < 0.5)
            )
            if survives and not any(node is moved for node in immovable):
                _apply(change)
                continue
            lost += 1
            if moved is not None and len(change) > 1:
                # It kept its old name: a later rename must not give it a second one.
                immovable.append(moved)
        self._pending.clear()
        _fall_back(self.root)
        return lost

    def files(self) -> Iterator[tuple[str, Inode]]:
        """Every file with its path, in path order."""
        yield from _walk(self.root, "")

    def directories(self) -> Iterator[str]:
        """Path of every directory but the root, parents first."""
        yield from _walk_directories(self.root, "")

    def _place(self, path: str) -> tuple[Directory, str]:
        parts = path_parts(path)
        if not parts:
            raise DiskError("the root of a disk cannot be created, renamed or removed")
        return self.directory("/".join(parts[:-1])), parts[-1]

    def _change(self, change: _Change) -> None:
        for (holder, name), node in change.items():
            if node is None:
                del holder.entries[name]
            else:
                holder.entries[name] = node
        self._pending.append((self.mark, change))
        self.mark += 1

    def _empty(self, directory: Directory) -> list[Inode]:
        removed: list[Inode] = []
        for name, node in sorted(directory.entries.items()):
            if isinstance(node, Directory):
                removed += self._empty(node)
            else:
                node.linked = False
                removed.append(node)
            self._change({(directory, name): None})
        return removed


def _apply(change: _Change) -> None:
    for (holder, name), node in change.items():
        if node is None:
            holder.durable.pop(name, None)
        else:
            holder.durable[name] = node


def _fall_back(directory: Directory) -> None:
    directory.entries = dict(directory.durable)
    for node in directory.entries.values():
        if isinstance(node, Directory):
            _fall_back(node)
        else:
            node.linked = True


def _walk(directory: Directory, prefix: str) -> Iterator[tuple[str, Inode]]:
    for name, node in sorted(directory.entries.items()):
        if isinstance(node, Directory):
            yield from _walk(node, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", node


def _walk_directories(directory: Directory, prefix: str) -> Iterator[str]:
    for name, node in sorted(directory.entries.items()):
        if isinstance(node, Directory):
            yield prefix + name
            yield from _walk_directories(node, f"{prefix}{name}/")
