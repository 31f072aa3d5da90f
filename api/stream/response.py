"""The response that sends a viewer's events until the client leaves or the stream ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.auth import ApiKey
from api.protocol import ABORT, ENDS_WITH_CLIENT
from api.stream import events
from api.stream.coding import Chunk, Coded, Coding
from api.stream.filters import Filter
from api.stream.hub import Hub
from api.stream.viewer import Viewer

_LAST_WORDS_S = 1.0
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # a proxy must not collect the events
    (b"vary", b"Accept-Encoding"),
]
_RETRY, _HEARTBEAT = Chunk(events.RETRY), Chunk(events.HEARTBEAT)


class EventStream(Response):
    """`may_go_on` tells whether the key is still valid; it is asked with each heartbeat."""

    media_type = "text/event-stream"
    is_endless: ClassVar[bool] = True

    def __init__(
        self,
        hub: Hub,
        watched: Filter,
        key: ApiKey,
        last_id: str,
        coding: Coding,
        heartbeat_s: float,
        may_go_on: Callable[[], Awaitable[bool]],
    ) -> None:
        super().__init__()
        self._hub = hub
        self._watched = watched
        self._key = key
        self._last_id = last_id
        self._coding = coding
        self._heartbeat_s = heartbeat_s
        self._may_go_on = may_go_on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][ENDS_WITH_CLIENT]()
        async with self._hub.viewing(self._watched, self._key, self._coding) as viewer:
            gone = asyncio.create_task(_left(receive))
            sending = asyncio.create_task(self._send(viewer, send))
            ended = asyncio.create_task(viewer.ended.wait())
            try:
                await asyncio.wait({gone, sending, ended}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done() and not sending.done():
                    await _within_moments(viewer, sending, gone)
                if sending.done():
                    await sending
            finally:
                if not sending.done():
                    # A client that does not read would keep the connection for as long as it likes.
                    scope["state"][ABORT]()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(gone), _LAST_WORDS_S)
                for task in (gone, sending, ended):
                    task.cancel()
                await asyncio.gather(gone, sending, ended, return_exceptions=True)

    async def _send(self, viewer: Viewer, send: Send) -> None:
        coding = self._coding
        headers = [*_HEADERS, (b"content-encoding", coding.name.encode())] if coding.name else _HEADERS
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(
            {"type": "http.response.body", "body": coding.begin() + coding.add(coding.of(_RETRY)), "more_body": True}
        )
        async for coded in self._chunks(viewer):
            await send({"type": "http.response.body", "body": coding.add(coded), "more_body": True})
        last = Chunk(events.comment(viewer.end_reason or "end"))
        await send({"type": "http.response.body", "body": coding.add(coding.of(last)) + coding.end()})

    async def _chunks(self, viewer: Viewer) -> AsyncIterator[Coded]:
        for chunk in self._hub.opening(viewer, self._last_id):
            yield self._coding.of(chunk)
            if viewer.ended.is_set():
                return
        heartbeat_at = time.monotonic() + self._heartbeat_s
        while not viewer.ended.is_set():
            if time.monotonic() >= heartbeat_at:
                if not await self._may_go_on():
                    viewer.end("the API key is no longer valid")
                    return
                yield self._coding.of(_HEARTBEAT)
                heartbeat_at = time.monotonic() + self._heartbeat_s
            arrived = await viewer.next(heartbeat_at - time.monotonic())
            if arrived is not None:
                yield arrived


async def _left(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _within_moments(viewer: Viewer, sending: "asyncio.Task[None]", gone: "asyncio.Task[None]") -> None:
    """Give the stream time to end as it should, unless the client does not read."""
    if viewer.end_reason != "read too slowly":
        await asyncio.wait({sending, gone}, timeout=_LAST_WORDS_S, return_when=asyncio.FIRST_COMPLETED)
