"""Limits the questions of one key that are in progress, so that they cannot occupy the database and the memory."""

import asyncio
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import ApiKey
from api.body import Disconnected
from api.problems import Problem
from api.protocol import IS_GONE, WRITTEN
from api.routing import FOUND, Found
from api.turns import TooManyWaiting, Turns

_IN_ALL = 64
_MOST_WAITING = 1_000
"""Questions of one key: more than a page with hundreds of viewers has at a time."""
_LARGE_BYTES = 256 * 1024
"""A smaller answer fits into the kernel's send buffer; of a larger one the rest is in our memory until it is read."""

_BYTES_PER_S = 8_000_000
"""Of large answers in one turn of a key whose other questions wait."""
_LONGEST_REST_S = 1.0


class Questions:
    """Lets `per_key` requests of a key pass at a time; further ones wait for their turn. Raises 429 when too many wait.

    Figures, which may take seconds, have turns of their own: what is answered at once does not wait for them.
    A turn ends when the answer is ready, or, if it is large, when the client has read it and, where others of the key
    wait, after a rest: to ask for large answers and to close at once costs a client nothing. Ingest and live streams
    have limits of their own. What needs no key is answered one by one.
    """

    def __init__(self, app: ASGIApp, per_key: int) -> None:
        self._app = app
        self._turns = Turns(per_key, _IN_ALL, _MOST_WAITING)
        self._turns_of_figures = Turns(per_key, _IN_ALL, _MOST_WAITING)
        self._public = asyncio.Lock()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found: Found = scope[FOUND]
        endpoint = found.endpoint
        if endpoint is None or endpoint.plain is not None or endpoint.is_endless:
            return self._app(scope, receive, send)
        if endpoint.access == "public":
            return self._one_by_one(scope, receive, send)
        return self._in_turn(self._turns_of_figures if endpoint.is_of_figures else self._turns, scope, receive, send)

    async def _one_by_one(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request without a key in an iteration of the event loop.

        A thousand that arrive at a time are a second of work, in which others would not be served.
        """
        async with self._public:
            await asyncio.sleep(0)
        await self._app(scope, receive, send)

    async def _in_turn(self, turns: Turns, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def counted(message: Message) -> None:
            nonlocal size
            size += len(message.get("body", b""))
            await send(message)

        key: ApiKey = scope["state"]["key"]
        try:
            async with turns.turn(key.id):
                if scope["state"][IS_GONE]():  # while it waited
                    raise Disconnected
                await self._app(scope, receive, counted)
                if size > _LARGE_BYTES:
                    await scope["state"][WRITTEN]()
                    if turns.has_waiting(key.id):
                        await asyncio.sleep(min(_LONGEST_REST_S, size / _BYTES_PER_S))
        except TooManyWaiting:
            raise Problem(429, "too many requests with this key wait for their turn", {"Retry-After": "1"}) from None
