"""One open stream: what is to be sent to it, bounded in bytes."""

import asyncio
from collections import deque
from typing import Literal

from api.stream.filters import Filter

End = Literal[
    "shutting down", "read too slowly", "too many devices", "the register has changed", "the API key is no longer valid"
]
"""Why a stream ends. The client connects again; only after a change of the register or a loss it gets a snapshot."""


class Viewer:
    """The queue of a connection. The chunks are shared with other viewers."""

    def __init__(self, watched: Filter, most_bytes: int) -> None:
        self.watched = watched
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when a look has seen what is watched."""
        self.ended = asyncio.Event()
        self.end_reason: End | None = None
        self._most_bytes = most_bytes
        self._bytes = 0
        self._chunks: deque[bytes] = deque()
        self._arrived = asyncio.Event()

    def offer(self, chunk: bytes) -> None:
        """Add a chunk; end the stream if the client has too many bytes to read."""
        if self._chunks and self._bytes + len(chunk) > self._most_bytes:
            self.end("read too slowly")
        if not self.ended.is_set():
            self._chunks.append(chunk)
            self._bytes += len(chunk)
            self._arrived.set()

    def end(self, reason: End) -> None:
        """End the stream; what is not sent yet is discarded, because the client can resume."""
        if not self.ended.is_set():
            self.end_reason = reason
            self._chunks.clear()
            self.ended.set()
            self._arrived.set()

    async def next(self, timeout_s: float) -> bytes | None:
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
        self._bytes -= len(chunk)
        return chunk
