"""Reads request bodies within limits of size, time, total memory and decompressed size."""

import asyncio
import contextlib
import zlib
from collections.abc import Iterator

from starlette.types import Receive, Scope

from api.problems import Problem, unavailable

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_FORM_BYTES = 64 * 1024
"""Largest body of a request whose route has no limit of its own."""

_GZIP = 16 + zlib.MAX_WBITS
_MOST_MEMBERS = 100  # each costs a copy of the bytes after it


class Disconnected(Exception):
    """The client disconnected before its body was complete; no response can be sent."""


class BodyBudget:
    """Bytes of bodies that may be in memory at a time."""

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes

    @contextlib.contextmanager
    def reserve(self, size_bytes: int) -> Iterator[None]:
        """Reserve `size_bytes` for a request. Raises 503 when the budget is exhausted."""
        if size_bytes > self._left:
            raise unavailable("too many concurrent large requests", 1)
        self._left -= size_bytes
        try:
            yield
        finally:
            self._left += size_bytes


def header(scope: Scope, name: bytes) -> str:
    """The header's value, or an empty string."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return ""


def announced_bytes(scope: Scope, limit: int) -> int:
    """The maximum length of the body. Raises 413 for a Content-Length beyond the limit."""
    length = header(scope, b"content-length")
    if not length:
        return limit
    if int(length) > limit:
        raise _too_large(limit)
    return int(length)


async def read_body(receive: Receive, limit: int, timeout_s: float) -> bytes:
    """The whole body as sent. Raises 413 beyond `limit` bytes, 408 after `timeout_s`, `Disconnected`."""
    chunks: list[bytes] = []
    left = limit
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Disconnected
                chunk = message.get("body", b"")
                left -= len(chunk)
                if left < 0:
                    raise _too_large(limit)
                chunks.append(chunk)
                if not message.get("more_body"):
                    return b"".join(chunks)
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {timeout_s:g} s", {"Connection": "close"}) from None


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its Content-Encoding. Raises 415 for an unsupported encoding, 400 for invalid gzip, 413.

    At most `limit` bytes are decompressed, so a decompression bomb costs no more than a large body.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Problem(415, f"Content-Encoding: {encoding} is not supported; use gzip", {"Accept-Encoding": "gzip"})
    plain, members = b"", 0
    try:
        while body:  # RFC 1952: a gzip file consists of one or more members
            members += 1
            if members > _MOST_MEMBERS:
                raise Problem(400, f"gzip: more than {_MOST_MEMBERS} members")
            member = zlib.decompressobj(_GZIP)
            plain += member.decompress(body, limit + 1 - len(plain))
            if len(plain) > limit:
                raise _too_large(limit)
            if not member.eof:
                raise Problem(400, "gzip: the body is truncated")
            body = member.unused_data
    except zlib.error as error:
        raise Problem(400, f"gzip: {error}") from None
    return plain


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit} bytes")
