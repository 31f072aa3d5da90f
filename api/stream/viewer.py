"""One open stream: what is to be sent to it, bounded in bytes."""

import asyncio
from collections import deque
from typing import Literal

from api.stream.coding import Chunk, Coded, Coding
from api.stream.filters import Filter

End = Literal[
    "shutting down", "read too slowly", "too many devices", "the register has changed", "the API key is no longer valid"
]
"""Why a stream ends. The client connects again; only after a change of the register or a loss it gets a snapshot."""

_OBJECTS_BYTES = 200


class Viewer:
    """The queue of a connection. The chunks are shared with other viewers."""

    def __init__(self, watched: Filter, most_bytes: int, coding: Coding) -> None:
        self.watched = watched
        self.coding = coding
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when a look has seen what is watched."""
        self.ended = asyncio.Event()
        self.end_reason: End | None = None
        self._most_bytes = most_bytes
        self._bytes = 0
        self._chunks: deque[Coded] = deque()
        self._arrived = asyncio.Event()

    def offer(self, chunk: Chunk) -> int:
        """Add a chunk, and return its bytes; end the stream if the client has too many bytes to read."""
        coded = self.coding.of(chunk)
        if self._chunks and self._bytes + _held(coded) > self._most_bytes:
            self.end("read too slowly")
        if not self.ended.is_set():
            self._chunks.append(coded)
            self._bytes += _held(coded)
            self._arrived.set()
        return len(coded.body)

    def end(self, reason: End) -> None:
        """End the stream; what is not sent yet is discarded, because the client can resume."""
        if not self.ended.is_set():
            self.end_reason = reason
            self._chunks.clear()
            self.ended.set()
            self._arrived.set()

    async def next(self, timeout_s: float) -> Coded | None:
        """The next chunk; None when there was none in time, or the stream has ended."""
        if not self._chunks and not self.ended.is_set():
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._bytes -= _held(chunk)
        return chunk


def _held(coded: Coded) -> int:
    """Bytes that a waiting chunk takes, with its objects."""
    return len(coded.body) + _OBJECTS_BYTES
