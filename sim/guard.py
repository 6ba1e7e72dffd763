"""No time, entropy, thread or socket of the outside world reaches a simulated program.

While a simulation runs, the usual doors (``time.time``, ``random.random``, ``os.urandom``, …) are
guarded in its thread. Code of ``storage``, ``sim`` and ``scenarios`` that knocks gets
:class:`Nondeterminism`, naming what to use instead. Libraries below it (``logging`` asks for the
time of every record) get virtual time and seeded numbers, so they cannot spoil a run. What can
have no deterministic answer (threads, sockets, processes, real sleep) is refused to everybody.
Functions that guarded modules imported by name are replaced there too. Not guarded: functions a
third-party library imported by name, and C code.
"""

from __future__ import annotations

import builtins
import datetime
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from sim.errors import Nondeterminism

GUARDED_PACKAGES = frozenset({"storage", "sim", "scenarios"})
_EPOCH_S = 2_000_000_000.0
_MONOTONIC = "measure with loop.time()"
_WALL = "read the wall clock from context.ports.clock"
_ENTROPY = "draw from context.ports.entropy, or from a child of sim.Seeds"


class Source:
    """What libraries get instead of the outside world: one run's own time and entropy."""

    __slots__ = ("_entropy", "_make_entropy", "now_s", "refusals", "start_s", "thread")

    def __init__(
        self, now_s: Callable[[], float], make_entropy: Callable[[], random.Random]
    ) -> None:
        self.now_s = now_s
        self.start_s = now_s()
        self.thread = threading.get_ident()
        self.refusals: list[str] = []
        self._make_entropy = make_entropy
        self._entropy: random.Random | None = None

    @property
    def entropy(self) -> random.Random:
        """The run's generator for libraries; made when the first one asks."""
        if self._entropy is None:
            self._entropy = self._make_entropy()
        return self._entropy

    def wall_s(self) -> float:
        """Virtual seconds since the Unix epoch, decades away from ``now_s``."""
        return _EPOCH_S + self.now_s() - self.start_s


Substitute = Callable[[Source, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class Door:
    """One guarded attribute. Without a ``substitute`` libraries are refused as well."""

    owner: Any
    attribute: str
    alternative: str
    substitute: Substitute | None

    @property
    def name(self) -> str:
        """As people write it: ``time.time``."""
        return f"{self.owner.__name__}.{self.attribute}".removeprefix("builtins.")


def _drawn(method: str) -> Substitute:
    return lambda source, args, options: getattr(source.entropy, method)(*args, **options)


def _doors() -> list[Door]:
    no_thread = "there are no threads in the simulation: await a port, or run the work inline"
    no_socket = "use asyncio streams, which run on the simulated network"
    monotonic: Substitute = lambda source, args, options: source.now_s()  # noqa: E731
    monotonic_ns: Substitute = lambda source, args, options: int(source.now_s() * 1e9)  # noqa: E731
    doors = [
        Door(time, "time", _WALL, lambda source, args, options: source.wall_s()),
        Door(time, "time_ns", _WALL, lambda source, args, options: int(source.wall_s() * 1e9)),
        Door(time, "monotonic", _MONOTONIC, monotonic),
        Door(time, "monotonic_ns", _MONOTONIC, monotonic_ns),
        Door(time, "perf_counter", _MONOTONIC, monotonic),
        Door(time, "perf_counter_ns", _MONOTONIC, monotonic_ns),
        Door(time, "sleep", "await asyncio.sleep()", None),
        Door(os, "urandom", _ENTROPY, _drawn("randbytes")),
        Door(random, "_urandom", _ENTROPY, _drawn("randbytes")),
        Door(uuid, "uuid1", _ENTROPY, _random_uuid),
        Door(uuid, "uuid4", _ENTROPY, _random_uuid),
        Door(threading.Thread, "start", no_thread, None),
        Door(socket.socket, "__init__", no_socket, None),
        Door(subprocess.Popen, "__init__", "spawn a node instead of a process", None),
    ]
    drawers = """random randint randrange choice choices shuffle sample uniform triangular
        getrandbits randbytes gauss normalvariate lognormvariate expovariate betavariate
        gammavariate paretovariate weibullvariate vonmisesvariate"""
    doors += [Door(random, name, _ENTROPY, _drawn(name)) for name in drawers.split()]
    return doors


def _random_uuid(source: Source, args: tuple[Any, ...], options: dict[str, Any]) -> uuid.UUID:
    return uuid.UUID(int=source.entropy.getrandbits(128), version=4)


_active: Source | None = None


def _is_guarded(module: str) -> bool:
    package, _, rest = module.partition(".")
    if package not in GUARDED_PACKAGES:
        return False
    return not (package == "sim" and (rest.startswith("bench") or rest == "guard"))


def _refuse(source: Source, name: str, caller: str, alternative: str) -> NoReturn:
    message = f"{caller} used {name} in a simulation; {alternative}"
    source.refusals.append(message)
    raise Nondeterminism(message)


def _guarded(door: Door, original: Any) -> Callable[..., Any]:
    """A stand-in that is harmless for ever: outside of a run, and in other threads, it forwards."""
    substitute = door.substitute
    ident = threading.get_ident
    get_frame = sys._getframe

    def stand_in(*args: Any, **options: Any) -> Any:
        source = _active
        if source is None or ident() != source.thread:
            return original(*args, **options)
        caller = get_frame(1).f_globals.get("__name__", "?")
        if substitute is None or _is_guarded(caller):
            _refuse(source, door.name, caller, door.alternative)
        return substitute(source, args, options)

    stand_in.__name__ = stand_in.__qualname__ = door.attribute
    return stand_in


class _DatetimeType(type):
    """Lets instances of the real ``datetime`` pass ``isinstance`` checks against the stand-in."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real_datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _real_datetime)


_real_datetime = datetime.datetime


class _Datetime(_real_datetime, metaclass=_DatetimeType):
    """Stands in for ``datetime.datetime`` during a run: its "now" is virtual or refused."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        """Virtual wall time for libraries; refused to guarded code."""
        source = _active
        if source is None or threading.get_ident() != source.thread:
            return _real_datetime.now(tz)
        caller = sys._getframe(1).f_globals.get("__name__", "?")
        if _is_guarded(caller):
            _refuse(source, "datetime.now", caller, _WALL)
        return _real_datetime.fromtimestamp(source.wall_s(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        """The same without a time zone."""
        source = _active
        if source is None or threading.get_ident() != source.thread:
            return _real_datetime.now(datetime.UTC).replace(tzinfo=None)
        caller = sys._getframe(1).f_globals.get("__name__", "?")
        if _is_guarded(caller):
            _refuse(source, "datetime.utcnow", caller, _WALL)
        return _real_datetime.fromtimestamp(source.wall_s(), datetime.UTC).replace(tzinfo=None)


def _open_for_storage(original: Any) -> Callable[..., Any]:
    def stand_in(*args: Any, **options: Any) -> Any:
        source = _active
        if source is not None and threading.get_ident() == source.thread:
            caller = sys._getframe(1).f_globals.get("__name__", "?")
            if caller.startswith("storage."):
                _refuse(source, "open", caller, "use the node's disk port (context.ports.disk)")
        return original(*args, **options)

    return stand_in


@dataclass(frozen=True)
class _Site:
    """A place that holds a guarded function: where, its real value and its stand-in."""

    owner: Any
    attribute: str
    original: Any
    stand_in: Any


def _own_sites() -> list[_Site]:
    sites = []
    for door in _doors():
        original = getattr(door.owner, door.attribute)
        sites.append(_Site(door.owner, door.attribute, original, _guarded(door, original)))
    sites.append(_Site(builtins, "open", builtins.open, _open_for_storage(builtins.open)))
    sites.append(_Site(datetime, "datetime", _real_datetime, _Datetime))
    return sites


_SITES = _own_sites()
_BY_ORIGINAL = {id(site.original): site for site in _SITES if site.owner is not builtins}
_imported: tuple[int, list[_Site]] = (0, [])


def _imported_sites() -> list[_Site]:
    """Guarded functions that modules of guarded packages imported by name."""
    global _imported
    if _imported[0] != len(sys.modules):
        found = []
        for name, module in list(sys.modules.items()):
            if not _is_guarded(name):
                continue
            for attribute, value in list(vars(module).items()):
                site = _BY_ORIGINAL.get(id(value))
                if site is not None and site.original is value:
                    found.append(_Site(module, attribute, value, site.stand_in))
        _imported = (len(sys.modules), found)
    return _imported[1]


def enter(source: Source) -> list[_Site]:
    """Close every door for the run of ``source``; give the result to :func:`leave`."""
    global _active
    assert _active is None, "a simulation runs already in this process"
    sites = [*_SITES, *_imported_sites()]
    for site in sites:
        setattr(site.owner, site.attribute, site.stand_in)
    _active = source
    return sites


def leave(sites: list[_Site]) -> None:
    """Open the doors again."""
    global _active
    _active = None
    for site in sites:
        setattr(site.owner, site.attribute, site.original)
