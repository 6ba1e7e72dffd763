"""Names, ports and servers, an unmodified third-party one among them."""

import asyncio
import errno

import aiohttp.web
import pytest

import sim


def test_port_in_use_and_foreign_names():
    async def listen(host):
        return await asyncio.start_server(lambda reader, writer: None, host, 1)

    async def main():
        loop = asyncio.get_running_loop()
        await listen("server")
        with pytest.raises(OSError, match="address already in use") as caught:
            await listen("server")
        assert caught.value.errno == errno.EADDRINUSE
        with loop.nodes.acting_as("a"):
            task = loop.create_task(listen("b"))
        with pytest.raises(OSError, match="node 'a' cannot listen as 'b'"):
            await task

    sim.run(main)


def test_local_names_and_ephemeral_ports():
    async def main():
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        name, port = server.sockets[0].getsockname()
        assert (name, port >= 49152) == ("harness", True)
        reader, writer = await asyncio.open_connection("localhost", port)
        assert await reader.read() == b""
        writer.close()

    sim.run(main)


def test_getaddrinfo_and_tls():
    async def main():
        loop = asyncio.get_running_loop()
        assert [each[4] for each in await loop.getaddrinfo("sk0", 5454)] == [("sk0", 5454)]
        with pytest.raises(NotImplementedError, match="leave ssl unset"):
            await asyncio.open_connection("sk0", 1, ssl=True)

    sim.run(main)


def test_an_unmodified_aiohttp_server_answers():
    async def hello(request):
        return aiohttp.web.json_response({"to": request.query["name"], "from": request.remote})

    async def main():
        application = aiohttp.web.Application()
        application.router.add_get("/hello", hello)
        runner = aiohttp.web.AppRunner(application)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "web", 8080).start()
        reader, writer = await asyncio.open_connection("web", 8080)
        answers = []
        for name in ("one", "two"):
            writer.write(f"GET /hello?name={name} HTTP/1.1\r\nHost: web\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            answers.append(await reader.readexactly(size))
        writer.close()
        await runner.cleanup()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("web", 8080)
        return answers

    assert sim.run(main) == [
        b'{"to": "one", "from": "harness"}',
        b'{"to": "two", "from": "harness"}',
    ]
