"""Receives the body of a request, within its limits of size and time, before the framework is called."""

import contextlib
from collections.abc import Awaitable, Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import ApiKey
from api.body import Pace, receive_body
from api.body_budget import BodyBudget
from api.routing import FOUND, Found


class Bodies:
    """Receives and decompresses the body. Raises 400, 408, 413, 415, 503 and `Disconnected`."""

    def __init__(self, app: ASGIApp, budget: BodyBudget, pace: Pace) -> None:
        self._app = app
        self._budget = budget
        self._pace = pace

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found: Found = scope[FOUND]
        if found.endpoint is None or found.endpoint.body_limit is None:
            return self._app(scope, receive, send)
        return self._with_body(scope, receive, send, found.endpoint.body_limit)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        key: ApiKey = scope["state"]["key"]
        with self._budget.charge(key.id) as charge:
            body = await receive_body(scope, receive, limit, self._pace, charge)
            await self._app(scope, _received(body, receive), send)


def _received(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first returns the whole body."""
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        with contextlib.suppress(StopIteration):
            return next(messages)
        return await receive()

    return replay
