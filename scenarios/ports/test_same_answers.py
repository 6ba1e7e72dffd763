"""Random programs on the simulated and the real disk and bucket: every answer is the same.

The contract's tests say what must hold; these find what nobody thought of saying.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from scenarios.ports.lab import Lab
from scenarios.ports.real_lab import RealLab, Servers
from scenarios.ports.sim_lab import SimLab
from storage.errors import PortError
from storage.ports import Disk, File, ObjectStore

NAMES = ("a", "b", "c")
Step = tuple[str, str, str, int, int]
Answer = tuple[str, object]


def _program(seed: int, verbs: tuple[str, ...], length: int) -> list[Step]:
    """Verb, two paths of one or two of a few names, two small numbers."""
    generator = random.Random(seed)

    def path() -> str:
        return "/".join(generator.choices(NAMES, k=generator.choice((1, 1, 2, 3))))

    return [
        (
            generator.choice(verbs),
            path(),
            path(),
            generator.randrange(40),
            generator.randrange(1, 30),
        )
        for _ in range(length)
    ]


async def _answer(call: Callable[[], Awaitable[object]]) -> Answer:
    """The result of a call, or the class of its error, for comparison."""
    try:
        return "ok", await call()
    except PortError as error:
        return "error", type(error).__name__


class _DiskProgram:
    """Carries steps out on a disk, keeping files open across them."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._files: list[File] = []

    async def step(self, step: Step) -> object:
        verb, path, other, offset, length = step
        disk, file = self._disk, self._files[offset % len(self._files)] if self._files else None
        match verb:
            case "create" | "open" | "exclusive":
                create, exclusive = verb == "create", verb == "exclusive"
                self._files.append(await disk.open(path, create=create, exclusive=exclusive))
                return len(self._files)
            case "mkdir" | "unlink" | "rmtree" | "listdir" | "exists" | "sync_dir":
                return await getattr(disk, verb)(path)
            case "rename":
                await disk.rename(path, other)
                return None
        if file is None:
            return None
        match verb:
            case "pwrite":
                await file.pwrite(offset, bytes([offset]) * length)
                return None
            case "pread":
                return await file.pread(offset, length)
            case "truncate":
                await file.truncate(offset)
                return None
        return await getattr(file, verb)()


DISK_VERBS = (
    "create", "create", "create", "open", "exclusive", "mkdir", "mkdir", "unlink", "rmtree",
    "listdir", "listdir", "exists", "sync_dir", "rename", "rename", "rename", "pwrite", "pwrite",
    "pread", "pread", "truncate", "size", "fsync", "fdatasync", "close",
)  # fmt: skip


def _answers(lab: Lab, play: Callable[[], Awaitable[list[Answer]]]) -> list[Answer]:
    answers: list[Answer] = []

    async def test() -> None:
        answers.extend(await play())

    lab.run(test)
    return answers


def _compare(steps: list[Step], simulated: list[Answer], real: list[Answer]) -> None:
    for number, (step, one, other) in enumerate(zip(steps, simulated, real, strict=True)):
        assert one == other, f"step {number} {step}: sim answers {one}, real {other}"


@pytest.mark.parametrize("seed", range(12))
def test_disks_answer_alike(seed: int, servers: Servers, tmp_path: Path) -> None:
    """Names, contents, sizes and the classes of errors."""
    steps = _program(seed, DISK_VERBS, 250)

    def play(lab: Lab) -> Callable[[], Awaitable[list[Answer]]]:
        async def run() -> list[Answer]:
            program = _DiskProgram(lab.disk())
            return [await _answer(functools.partial(program.step, step)) for step in steps]

        return run

    simulated, real = SimLab(seed), RealLab(servers, tmp_path)
    _compare(steps, _answers(simulated, play(simulated)), _answers(real, play(real)))


OBJECT_VERBS = (
    "put", "put", "put", "if_absent", "if_etag", "if_etag", "get", "get_range", "head", "list",
    "delete",
)  # fmt: skip


async def _object_step(store: ObjectStore, step: Step, etags: list[str]) -> object:
    verb, key, _, offset, length = step
    data = bytes([offset]) * length
    match verb:
        case "put" | "if_absent" | "if_etag":
            etag = etags[offset % len(etags)] if verb == "if_etag" and etags else None
            etags.append(await store.put(key, data, if_absent=verb == "if_absent", if_etag=etag))
            return etags.index(etags[-1])
        case "get_range":
            return await store.get_range(key, offset % 35, length)
        case "head":
            info = await store.head(key)
            return info.key, info.size, etags.index(info.etag)
        case "list":
            return [(each.key, each.size, etags.index(each.etag)) for each in await store.list(key)]
    return await getattr(store, verb)(key)


@pytest.mark.parametrize("seed", range(4))
def test_buckets_answer_alike(seed: int, servers: Servers, tmp_path: Path) -> None:
    """Contents, listings, etags up to their spelling, and the classes of errors."""
    steps = _program(seed, OBJECT_VERBS, 120)

    def play(lab: Lab) -> Callable[[], Awaitable[list[Answer]]]:
        async def run() -> list[Answer]:
            store, etags = lab.objects(), list[str]()
            return [
                await _answer(functools.partial(_object_step, store, step, etags)) for step in steps
            ]

        return run

    simulated, real = SimLab(seed), RealLab(servers, tmp_path)
    _compare(steps, _answers(simulated, play(simulated)), _answers(real, play(real)))
