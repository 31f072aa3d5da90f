"""Receives the body of a request, within its limits of size and time, before the framework is called."""

import contextlib
from collections.abc import Awaitable, Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.body import BodyBudget, announced_bytes, decompress, header, read_body
from api.routing import FOUND, Found


class Bodies:
    """Receives and decompresses the body. Raises 400, 408, 413, 415, 503 and `Disconnected`."""

    def __init__(self, app: ASGIApp, budget: BodyBudget, timeout_s: float) -> None:
        self._app = app
        self._budget = budget
        self._timeout_s = timeout_s

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found: Found = scope[FOUND]
        if found.endpoint is None or found.endpoint.body_limit is None:
            return self._app(scope, receive, send)
        return self._with_body(scope, receive, send, found.endpoint.body_limit)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        with self._budget.reserve(announced_bytes(scope, limit)):
            body = await read_body(receive, limit, self._timeout_s)
            body = decompress(body, header(scope, b"content-encoding").strip().lower(), limit)
            await self._app(scope, _received(body, receive), send)


def _received(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first returns the whole body."""
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        with contextlib.suppress(StopIteration):
            return next(messages)
        return await receive()

    return replay
