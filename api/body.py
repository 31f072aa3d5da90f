"""Receives request bodies within limits of size, time, rate, total memory and decompressed size."""

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from starlette.types import Receive, Scope

from api.body_budget import SMALL_BYTES, Charge
from api.problems import Problem
from api.protocol import IS_WHOLE

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_FORM_BYTES = 64 * 1024
"""Largest body of a request whose route has no limit of its own."""

_GZIP = 16 + zlib.MAX_WBITS
_MOST_MEMBERS = 100  # each costs a copy of the bytes after it
_PIECE_BYTES = 256 * 1024
_PATIENCE_S = 5.0
"""From then on a body must have arrived at the least rate."""
_STOOD_STILL_S = 0.5
"""A time limit that is noticed so much later was missed by this process."""


class Disconnected(Exception):
    """The client disconnected before its body was complete; no response can be sent."""


class Pace(NamedTuple):
    """How long a body may take to arrive."""

    timeout_s: float
    least_bytes_per_s: float

    def due_s(self, received: int) -> float:
        """The time after the first byte is awaited at which more than `received` bytes must have arrived."""
        return min(self.timeout_s, _PATIENCE_S + received / self.least_bytes_per_s)


def header(scope: Scope, name: bytes) -> str:
    """The header's value, or an empty string."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return ""


async def receive_body(scope: Scope, receive: Receive, limit: int, pace: Pace, charge: Charge) -> bytes:
    """The whole body without its Content-Encoding, charged as it arrives.

    Raises 413 beyond `limit` bytes as sent or decompressed, 415 for an encoding that is not supported, 400 for invalid
    gzip, 408 for a body that arrives too slowly, 503 when the budget is exhausted, `Disconnected`.
    """
    announced = header(scope, b"content-length")
    if announced and int(announced) > limit:
        raise _too_large(limit)
    unpack = _unpacking(header(scope, b"content-encoding").strip().lower(), limit)
    if unpack is None and scope["state"][IS_WHOLE]():
        return await _received(receive, limit, charge)
    parts: list[bytes] = []
    received, loop = 0, asyncio.get_running_loop()
    began = loop.time()
    try:
        while True:
            chunk, is_last, stood_s = await _chunk_by(began + pace.due_s(received), receive)
            began += stood_s
            received += len(chunk)
            if received > limit:
                raise _too_large(limit)
            if unpack is None:
                _keep(chunk, charge, parts)
            else:
                unpacking = loop.time()
                await _unpack(unpack(chunk, is_last), charge, parts)
                began += loop.time() - unpacking
            if is_last:
                return b"".join(parts)
    except TimeoutError:
        reason = (
            f"the body did not arrive within {pace.timeout_s:g} s, or more slowly than {pace.least_bytes_per_s:g} B/s"
        )
        raise Problem(408, reason, {"Connection": "close"}) from None
    finally:
        parts.clear()  # an exception keeps its frames, until its answer is sent


async def _received(receive: Receive, limit: int, charge: Charge) -> bytes:
    """A body that has arrived as a whole, as most do: a time limit would take longer than to receive it."""
    body, _ = await _chunk(receive)
    if len(body) > limit:
        raise _too_large(limit)
    charge.take(len(body))
    return body


async def _chunk_by(due: float, receive: Receive) -> tuple[bytes, bool, float]:
    """The same as `_chunk`, and how much longer the client got because this process stood still.

    Raises `TimeoutError`. A time limit that is noticed late says nothing of the client: the process or the machine was
    stopped or starved, and what has arrived meanwhile is read after the timers.
    """
    loop, more_s = asyncio.get_running_loop(), 0.0
    while True:
        try:
            async with asyncio.timeout_at(due + more_s):
                return *await _chunk(receive), more_s
        except TimeoutError:
            late_s = loop.time() - due - more_s
            if late_s < _STOOD_STILL_S:
                raise
            more_s += 2 * late_s


async def _chunk(receive: Receive) -> tuple[bytes, bool]:
    """What has arrived of the body, and whether it is the rest."""
    message = await receive()
    if message["type"] != "http.request":
        raise Disconnected
    return message.get("body", b""), not message.get("more_body")


def _keep(part: bytes, charge: Charge, parts: list[bytes]) -> None:
    charge.take(len(part))
    parts.append(part)


async def _unpack(pieces: Iterable[bytes], charge: Charge, parts: list[bytes]) -> None:
    """Decompress one body of a key at a time, and let others be served between the pieces."""
    async with charge.unpacking():
        for part in pieces:
            _keep(part, charge, parts)
            if len(part) > SMALL_BYTES:
                await asyncio.sleep(0)


def _unpacking(encoding: str, limit: int) -> Callable[[bytes, bool], Iterable[bytes]] | None:
    """What decompresses a body; None for one that is not compressed."""
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip"):
        raise Problem(415, f"Content-Encoding: {encoding} is not supported; use gzip", {"Accept-Encoding": "gzip"})
    return Gunzip(limit).decode


class Gunzip:
    """Decompresses gzip as it arrives, at most `limit` bytes: a bomb costs no more than a large body."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._members = 0
        self._member = zlib.decompressobj(_GZIP)
        self._is_begun = False

    def decode(self, chunk: bytes, is_last: bool) -> Iterator[bytes]:
        """The pieces to which a chunk decompresses, so that each can be charged before the next one is made.

        Raises 413, and 400 for invalid gzip, also for a truncated one at the end.
        """
        try:
            while chunk:  # RFC 1952: a gzip file consists of one or more members
                self._begin()
                part = self._member.decompress(chunk, min(self._left + 1, _PIECE_BYTES))
                self._left -= len(part)
                if self._left < 0:
                    raise _too_large(self._limit)
                yield part
                chunk = self._member.unconsumed_tail or self._member.unused_data
        except zlib.error as error:
            raise Problem(400, f"gzip: {error}") from None
        if is_last and self._is_begun and not self._member.eof:
            raise Problem(400, "gzip: the body is truncated")

    def _begin(self) -> None:
        """Begin a member unless one is being decompressed."""
        if self._is_begun and not self._member.eof:
            return
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise Problem(400, f"gzip: more than {_MOST_MEMBERS} members")
        self._member, self._is_begun = zlib.decompressobj(_GZIP), True


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit} bytes")
