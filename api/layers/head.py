"""HEAD is answered as GET is, without the body (RFC 9110, section 9.3.2)."""

import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Answered(Exception):
    """The head of the answer is sent; the rest of it need not be made."""


class Head:
    """Asks the endpoint as for GET and ends the answer after its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def headers_only(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            raise _Answered

        with contextlib.suppress(_Answered):
            await self._app({**scope, "method": "GET"}, receive, headers_only)
