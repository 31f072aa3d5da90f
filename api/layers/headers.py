"""The headers that every answer has."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
_HEADERS_OF_TLS = _HEADERS | {b"strict-transport-security": b"max-age=31536000"}


class Headers:
    """Adds what an answer does not say itself: the documentation page has a content security policy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _HEADERS_OF_TLS if scope["scheme"] == "https" else _HEADERS

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = dict(message["headers"])
                message["headers"] = [*message["headers"], *((k, v) for k, v in headers.items() if k not in own)]
            await send(message)

        await self._app(scope, receive, with_headers)
