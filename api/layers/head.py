"""Answers HEAD like GET, without the body (RFC 9110, section 9.3.2)."""

import contextlib
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Answered(Exception):
    """The headers of the response were sent; its body is not needed."""


class Head:
    """Calls the endpoint as for GET and ends the response after its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        answer = self._head if scope["method"] == "HEAD" else self._app
        return answer(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headers_only(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            raise _Answered

        with contextlib.suppress(_Answered):
            await self._app({**scope, "method": "GET"}, receive, headers_only)
