"""Limits the duration of a request, and the time in which a client must read each chunk of a stream."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Deadline:
    """Raises `TimeoutError` when a response has neither ended nor begun to stream after `timeout_s`.

    The limit includes the receipt of the request. It ends with the first chunk of a streaming response, which may last
    as long as its source; sending each chunk has the limit again, so that the connection of a client that does not read
    is closed.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded(message: Message) -> None:
            streaming = message.get("more_body", False) or deadline.when() is None
            if streaming:
                deadline.reschedule(loop.time() + self._timeout_s)
            await send(message)
            if streaming:
                deadline.reschedule(None)

        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_s) as deadline:
            await self._app(scope, receive, bounded)
