"""Publishes messages to a stream over a connection that is opened again whenever it is lost.

A message that was published while the connection was lost, or that the stream refused, is reported to its sender, who
still has it. Nothing is kept here for a later attempt.
"""

import asyncio

import structlog

from bridge.backoff import Backoff
from bridge.streams.port import Done, Message, Stream, StreamUnavailable

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class Publisher:
    """Keeps one connection to the stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._open = asyncio.Event()
        self._problem = "not connected to the stream yet"
        self.waiting = 0
        """Messages that the stream has not answered yet."""

    @property
    def not_ready(self) -> str | None:
        """Why nothing can be published at the moment, or None."""
        return None if self._open.is_set() else self._problem

    async def opened(self) -> None:
        """Wait until messages can be published."""
        await self._open.wait()

    async def run(self) -> None:
        """Connect, and reconnect with back-off and jitter, until cancelled. Raises `Misconfigured`."""
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while True:
            try:
                await self._stream.open()
                self._open.set()
                backoff.reset()
                reason = await self._stream.serve()
            except StreamUnavailable as error:
                reason = str(error)
            finally:
                self._open.clear()
                await self._stream.close()
            self._problem = f"not connected to the stream: {reason}"
            pause_s = backoff.next()
            log.warning("stream unavailable", reason=reason, again_in_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)

    def publish(self, message: Message, done: Done) -> None:
        """Make a message durable, behind those that were published before; `done` is called once, perhaps at once."""
        if not self._open.is_set():
            done(self._problem)
            return
        self.waiting += 1

        def answered(problem: str | None) -> None:
            self.waiting -= 1
            done(problem)

        try:
            self._stream.publish(message, answered)
        except StreamUnavailable as error:
            answered(str(error))
