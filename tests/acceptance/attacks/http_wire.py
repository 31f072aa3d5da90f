"""Raw HTTP/1.1 of an attacker, for requests that no regular client sends."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple

from tests.acceptance.attacks.attack import Target

_PIECE_BYTES = 65_536


class Wire(NamedTuple):
    """A connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """In pieces, of which one waits: very many connections send the same body."""
        view = memoryview(data)
        for start in range(0, len(data), _PIECE_BYTES):
            self.writer.write(view[start : start + _PIECE_BYTES])
            await self.writer.drain()

    async def status(self) -> str:
        """Read an answer to its end; its status."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        length = next((int(field[15:]) for field in fields if field.startswith(b"content-length:")), None)
        if length is not None:
            await self.reader.readexactly(length)
        elif b"transfer-encoding: chunked" in fields:
            while size := int(await self.reader.readline(), 16):
                await self.reader.readexactly(size + 2)
            await self.reader.readline()
        return head[9:12].decode()


@contextlib.asynccontextmanager
async def connection(target: Target, address: int = 0, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    """A connection to the API from one of the attacker's addresses; reset at the end.

    With a small `receive_buffer` what is not read stays with the server.
    """
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        sock.bind((f"127.0.1.{1 + address % 250}", 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", target.api_port))
        limit = 65_536 if receive_buffer is None else 1_024
        reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    except BaseException:
        sock.close()
        raise
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def head(target: Target, *fields: str, method: str = "GET", path: str = "/v1/ingest", key: str | None = None) -> bytes:
    """A request's head with the attacker's key, or another one."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {key or target.key}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def post(target: Target, body: bytes, *fields: str) -> bytes:
    """A whole POST to ingest."""
    length = f"Content-Length: {len(body)}"
    return head(target, "Content-Type: application/json", length, *fields, method="POST") + body


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
