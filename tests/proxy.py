"""A TCP proxy that injects network faults: it cuts or stalls a link, or discards its data.

It is independent of the protocol and is used for the broker and for PostgreSQL. `watch` is called with every chunk
before it is passed on, so that a test can record the traffic or intervene (for example, cut the link at `COMMIT`).
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Literal
from urllib.parse import urlsplit

Direction = Literal["up", "down"]
"""`up` is from the client to the server."""

Mode = Literal["pass", "stall", "swallow"]
"""`stall` reads nothing, so that windows fill; `swallow` reads and discards. Neither side is notified."""

_CHUNK_BYTES = 65_536


def _ignore(_link: "Link", _direction: Direction, _data: bytes) -> None:
    """Ignore the chunk."""


class Link:
    """One client's connection and the corresponding one to the server."""

    def __init__(self, number: int, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.number = number
        """Counts the proxy's connections from 1."""
        self._client, self._server = client, server

    def tell_client(self, data: bytes) -> None:
        """Send bytes to the client as if from the server."""
        self._client.write(data)

    def cut(self) -> None:
        """Reset both connections at once; what is in flight is lost."""
        for writer in (self._client, self._server):
            connection = writer.get_extra_info("socket")
            if connection is not None and connection.fileno() >= 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Listens on a separate port and passes everything on to `host:port`, unless configured otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._modes: dict[Direction, Mode] = {"up": "pass", "down": "pass"}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = 0
        self.port = 0
        self.refusing = False
        """New connections are closed as soon as they are made."""
        self.links: list[Link] = []
        """The connections that are open now, oldest first."""
        self.watch: Callable[[Link, Direction, bytes], None] = _ignore

    async def start(self) -> None:
        """Listen; `port` says where."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut everything and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def set(self, mode: Mode, direction: Direction | None = None) -> None:
        """Set the treatment of both directions, or one of them, for every link."""
        for one in ("up", "down") if direction is None else (direction,):
            self._modes[one] = mode
        async with self._changed:
            self._changed.notify_all()

    def cut(self) -> None:
        """Reset every link that is open."""
        for link in list(self.links):
            link.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._opened += 1
        link = Link(self._opened, writer, server_writer)
        self.links.append(link)
        pumps = [
            asyncio.create_task(self._pump(link, "up", reader, server_writer)),
            asyncio.create_task(self._pump(link, "down", server_reader, writer)),
        ]
        self._tasks.update(pumps)
        try:
            await asyncio.wait(pumps)
        finally:
            self._tasks.difference_update(pumps)
            if link in self.links:
                self.links.remove(link)
            link.cut()

    async def _pump(
        self, link: Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await self._next(direction, reader):
                self.watch(link, direction, data)
                if writer.transport.is_closing():
                    return
                if self._modes[direction] == "pass":
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass  # a reset ends this direction as an end of stream does
        finally:
            writer.close()

    async def _next(self, direction: Direction, reader: asyncio.StreamReader) -> bytes:
        await self._unless_stalled(direction)
        data = await reader.read(_CHUNK_BYTES)
        await self._unless_stalled(direction)
        return data

    async def _unless_stalled(self, direction: Direction) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._modes[direction] != "stall")


@contextlib.asynccontextmanager
async def proxy_before(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server of this URL, and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy(parts.hostname, parts.port)
    await proxy.start()
    login = parts.netloc.rpartition("@")[0]
    through = parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}" if login else f"127.0.0.1:{proxy.port}")
    try:
        yield proxy, through.geturl()
    finally:
        await proxy.stop()
