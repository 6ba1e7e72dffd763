"""The hub: one process through which every link of a cluster runs, so that links can be faulted.

It knows by name who dials whom (see :mod:`real.preface`), looks up where the target really
listens, and forwards. Its owner controls it over an inherited socket, one JSON line per request:
``{"number": n, "verb": name, …arguments}`` → ``{"number": n, "ok": value}`` or ``"error": text``.
The hub ends when that socket does. It knows nothing of roles or of what the bytes mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from real import preface
from real.links import Link, MessageLog
from real.pipe import Connection, close_with_reset
from real.preface import Address
from storage.errors import ProtocolError

FLUSH_S = 0.2
LOOPBACK = "127.0.0.1"

_Entry = tuple[int, Address]
"""(incarnation, where): a service that is registered."""


class Refused(Exception):
    """Nothing listens there; the text says where."""


class Hub:
    """State and verbs of the hub. Each ``verb_*`` method is one request of the control socket."""

    def __init__(self, message_path: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.effects: Counter[str] = Counter()
        self._outages: dict[str, Counter[str]] = {}
        self._out: set[str] = set()
        self._log = MessageLog(message_path)
        self._links: dict[tuple[str, str], Link] = {}
        self._connections: dict[int, tuple[str, str, Connection]] = {}
        self._services: dict[tuple[str, int], _Entry] = {}
        self._dark: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._vanished: set[socket.socket] = set()
        self._listeners: list[socket.socket] = []

    def link(self, source: str, target: str) -> Link:
        """The direction from ``source`` to ``target``."""
        found = self._links.get((source, target))
        if found is None:
            found = self._links[source, target] = Link(source, target, self.effects, self._log)
        return found

    def listen(self, port: int, serve: Callable[[socket.socket], Coroutine[Any, Any, None]]) -> int:
        """Accept on a loopback port (0: any) and serve each connection; returns the port."""
        listener = socket.create_server((LOOPBACK, port), backlog=512)
        listener.setblocking(False)
        self._listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._spawn(serve(sock))

        self.loop.add_reader(listener, accept)
        return int(listener.getsockname()[1])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve_named(self, sock: socket.socket) -> None:
        """One connection of a process of the cluster: a preface comes first."""
        with contextlib.suppress(OSError):
            lines = _Lines(self.loop, sock)
            first = await lines.next()
            match first:
                case preface.Connect():
                    await self._serve_connect(sock, first, plain=False)
                    return
                case preface.Session():
                    await self._serve_session(sock, first, lines)
        sock.close()

    def serve_plain(self, connect: preface.Connect) -> Callable[..., Coroutine[Any, Any, None]]:
        """A server for clients that cannot say a preface; the listener they use says it all."""

        async def serve(sock: socket.socket) -> None:
            try:
                await self._serve_connect(sock, connect, plain=True)
            except OSError:
                sock.close()

        return serve

    async def _serve_connect(
        self, sock: socket.socket, connect: preface.Connect, *, plain: bool
    ) -> None:
        forth = self.link(connect.source, connect.target)
        back = self.link(connect.target, connect.source)
        if not await forth.cross() or back.cut or connect.target in self._dark:
            self.effects["connections_cut"] += 1
            self._vanish(sock)
            return
        try:
            served = await self._dial(connect)
        except Refused as refusal:
            if not plain:
                sock.send(preface.REFUSED + str(refusal).encode())
            close_with_reset(sock) if plain else sock.close()
            return
        answered = await back.cross()
        connection = Connection((forth, back), (sock, served))
        try:
            if answered and not plain:
                sock.send(preface.ACCEPTED)
        except OSError:  # The dialler gave up while it waited.
            connection.reset()
            return
        if not answered:
            connection.back.silence()
        key = id(connection)
        self._connections[key] = (connect.source, connect.target, connection)
        connection.on_close = lambda: self._connections.pop(key)
        connection.start()

    async def _dial(self, connect: preface.Connect) -> socket.socket:
        if connect.target in self._out:
            self._outages[connect.target]["calls_failed"] += 1
            raise Refused(f"{connect.target} is out of service")
        found = self._services.get((connect.target, connect.port))
        if found is None:
            raise Refused(f"nothing listens on {connect.target}:{connect.port}")
        address = found[1]
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self.loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            raise Refused(f"{connect.target}:{connect.port} does not answer: {error}") from error
        return sock

    def _vanish(self, sock: socket.socket) -> None:
        """Keep an attempt that nobody will ever answer until its client gives up."""

        def readable() -> None:
            try:
                if sock.recv(65536):
                    return
            except BlockingIOError:
                return
            except OSError:
                pass
            self.loop.remove_reader(sock)
            self._vanished.discard(sock)
            sock.close()

        self._vanished.add(sock)
        self.loop.add_reader(sock, readable)

    async def _serve_session(
        self, sock: socket.socket, session: preface.Session, lines: _Lines
    ) -> None:
        mine: dict[tuple[str, int], _Entry] = {}
        try:
            while (line := await lines.next()) is not None:
                match line:
                    case preface.Listen(port, actual):
                        key = (session.host, port)
                        entry: _Entry = (session.incarnation, (LOOPBACK, actual))
                        refusal = self._register(key, entry)
                        if not refusal:
                            mine[key] = entry
                        answer = {"error": refusal} if refusal else {"ok": True}
                        await self.loop.sock_sendall(sock, json.dumps(answer).encode() + b"\n")
                    case preface.Unlisten(port):
                        self._unregister((session.host, port), mine.pop((session.host, port), None))
        finally:
            for key, entry in mine.items():
                self._unregister(key, entry)

    def _register(self, key: tuple[str, int], entry: _Entry) -> str:
        present = self._services.get(key)
        if present is not None and present[0] >= entry[0]:
            return f"{key[0]}:{key[1]} is in use by another listener of this host"
        self._services[key] = entry
        return ""

    def _unregister(self, key: tuple[str, int], entry: _Entry | None) -> None:
        if entry is not None and self._services.get(key) is entry:
            del self._services[key]

    def _between(self, one: str, other: str) -> list[Connection]:
        return [
            connection
            for source, target, connection in self._connections.values()
            if (source, target) in ((one, other), (other, one))
        ]

    def verb_assign(self, *, name: str, port: int, address: list[Any] | str) -> None:
        """Say where a service that cannot register itself really is; replaces what was there."""
        where: Address = address if isinstance(address, str) else (str(address[0]), int(address[1]))
        self._services[name, port] = (0, where)

    def verb_forward(self, *, source: str, target: str, port: int, at: int = 0) -> int:
        """Open a loopback port (``at``, or any) whose connections are ``source`` → ``target``."""
        return self.listen(at, self.serve_plain(preface.Connect(source, target, port)))

    def verb_fault(
        self,
        *,
        links: list[list[str]],
        cut: bool | None = None,
        held: bool | None = None,
        delay_s: float | None = None,
        fragmentation: float | None = None,
    ) -> None:
        """Set faults of directions; a cut also silences their established connections."""
        for source, target in links:
            link = self.link(source, target)
            link.set_faults(cut=cut, held=held, delay_s=delay_s, fragmentation=fragmentation)
            for connection in self._between(source, target):
                for pipe in connection.pipes():
                    if pipe.link is link:
                        pipe.silence() if cut else pipe.pump()

    def verb_reset(self, *, source: str, target: str) -> None:
        """Reset every established connection between two hosts."""
        for connection in self._between(source, target):
            self.effects["connections_reset"] += 1
            connection.reset()

    def verb_mute(self, *, source: str, target: str) -> None:
        """What ``source``, a service, says on connections that exist now gets lost for ever."""
        muted = self._outages.setdefault(source, Counter())
        for connection in self._between(source, target):
            for pipe in connection.pipes():
                if pipe.link.source == source and not pipe.silent:
                    muted["streams_muted"] += 1
                    pipe.silence()

    def verb_darken(self, *, host: str) -> None:
        """The machine is gone: its connections fall silent, attempts to reach it vanish."""
        self._dark.add(host)
        for source, target, connection in list(self._connections.values()):
            if host in (source, target):
                self.effects["connections_silenced"] += 1
                for pipe in connection.pipes():
                    pipe.silence()

    def verb_lighten(self, *, host: str) -> None:
        """A machine is back; silent connections stay silent."""
        self._dark.discard(host)

    def verb_outage(self, *, target: str) -> None:
        """Take a service away: reset its connections, refuse new ones."""
        self._out.add(target)
        counter = self._outages.setdefault(target, Counter())
        for _, other, connection in list(self._connections.values()):
            if other == target:
                counter["connections_reset"] += 1
                connection.reset()

    def verb_restore(self, *, target: str) -> None:
        """Give a service back."""
        self._out.discard(target)

    def verb_effects(self, *, target: str = "") -> dict[str, int]:
        """Counters of what faults did on links, or of what the outages of ``target`` did."""
        return dict(self._outages.get(target, Counter()) if target else self.effects)

    def verb_flush(self) -> int:
        """Write the message log out; returns how many messages did not fit."""
        for link in self._links.values():
            link.flush()
        self._log.write()
        return self._log.skipped


class _Lines:
    """Reads preface lines from a socket that carries nothing else until they are answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._buffer = b""

    async def next(self) -> preface.Line | None:
        """The next line; ``None`` at the end or when what came is no preface."""
        while b"\n" not in self._buffer:
            data = await self._loop.sock_recv(self._sock, preface.LINE_BYTES_MAX)
            if not data or len(self._buffer) > preface.LINE_BYTES_MAX:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return preface.parse(line)
        except ProtocolError:
            return None


async def serve(control: socket.socket, message_path: Path) -> None:
    """Run a hub until ``control`` ends; its first line says ``{"port": …}``."""
    hub = Hub(message_path)
    port = hub.listen(0, hub.serve_named)
    reader, writer = await asyncio.open_connection(sock=control)
    writer.write(json.dumps({"port": port}).encode() + b"\n")

    def flush() -> None:
        hub.verb_flush()
        hub.loop.call_later(FLUSH_S, flush)

    hub.loop.call_later(FLUSH_S, flush)
    while line := await reader.readline():
        request = json.loads(line)
        number = request.pop("number")
        answer = {"number": number, **_answer(hub, request)}
        writer.write(json.dumps(answer).encode() + b"\n")
    hub.verb_flush()


def _answer(hub: Hub, request: dict[str, Any]) -> dict[str, Any]:
    verb = request.pop("verb")
    try:
        return {"ok": getattr(hub, f"verb_{verb}")(**request)}
    except OSError as error:
        return {"error": f"{verb} {request}: {error}"}
