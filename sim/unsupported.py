"""The asyncio loop APIs that have no meaning in a simulated world, each with its alternative."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from sim.errors import UnsupportedApi

_STREAMS = "use streams: asyncio.open_connection and start_server run on the simulated network"
_DISK = "use the node's disk port (context.ports.disk)"
_NO_THREADS = "there are no threads in the simulation: await a port, or run the work inline"
_NO_PROCESSES = "there are no processes in the simulation: spawn a node"
_NO_SIGNALS = "there are no signals in the simulation: wait for NodeContext.stopping"
_NO_TLS = "TLS is not simulated: leave ssl unset"


def refuse(name: str, alternative: str) -> NoReturn:
    """Raise the error that names the API and what to use instead."""
    raise UnsupportedApi(f"the simulation loop has no {name}; {alternative}")


def _refusal(name: str, alternative: str) -> Any:
    def method(self: Any, *args: Any, **options: Any) -> NoReturn:
        refuse(f"loop.{name}", alternative)

    method.__name__ = name
    method.__doc__ = f"Not simulated: {alternative}."
    return method


class UnsupportedApis(asyncio.AbstractEventLoop):
    """Base of the loop: each of these raises ``UnsupportedApi`` as soon as it is called."""

    run_in_executor = _refusal("run_in_executor", _NO_THREADS)
    set_default_executor = _refusal("set_default_executor", _NO_THREADS)
    add_reader = _refusal("add_reader", _STREAMS)
    remove_reader = _refusal("remove_reader", _STREAMS)
    add_writer = _refusal("add_writer", _STREAMS)
    remove_writer = _refusal("remove_writer", _STREAMS)
    sock_recv = _refusal("sock_recv", _STREAMS)
    sock_recv_into = _refusal("sock_recv_into", _STREAMS)
    sock_recvfrom = _refusal("sock_recvfrom", _STREAMS)
    sock_recvfrom_into = _refusal("sock_recvfrom_into", _STREAMS)
    sock_sendall = _refusal("sock_sendall", _STREAMS)
    sock_sendto = _refusal("sock_sendto", _STREAMS)
    sock_connect = _refusal("sock_connect", _STREAMS)
    sock_accept = _refusal("sock_accept", _STREAMS)
    sock_sendfile = _refusal("sock_sendfile", _STREAMS)
    connect_accepted_socket = _refusal("connect_accepted_socket", _STREAMS)
    sendfile = _refusal("sendfile", _DISK + " and write to the transport")
    start_tls = _refusal("start_tls", _NO_TLS)
    create_unix_connection = _refusal("create_unix_connection", _STREAMS)
    create_unix_server = _refusal("create_unix_server", _STREAMS)
    connect_read_pipe = _refusal("connect_read_pipe", _STREAMS)
    connect_write_pipe = _refusal("connect_write_pipe", _STREAMS)
    subprocess_shell = _refusal("subprocess_shell", _NO_PROCESSES)
    subprocess_exec = _refusal("subprocess_exec", _NO_PROCESSES)
    add_signal_handler = _refusal("add_signal_handler", _NO_SIGNALS)
    remove_signal_handler = _refusal("remove_signal_handler", _NO_SIGNALS)

    def refuse_tls(self, ssl: Any, sock: Any) -> None:
        """Refuse arguments that ask for TLS or for a real socket."""
        if ssl:
            refuse("ssl", _NO_TLS)
        if sock is not None:
            refuse("real sockets", _STREAMS)
