"""The headers of every response."""

from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
_OF_TLS = _HEADERS | {b"strict-transport-security": b"max-age=31536000"}


class Headers:
    """Adds the headers that a response lacks: the documentation page has its own content security policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _OF_TLS if scope["scheme"] == "https" else _HEADERS

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_missing(headers, dict(message["headers"]))]
            await send(message)

        await self._app(scope, receive, with_headers)


def _missing(headers: Mapping[bytes, bytes], own: Mapping[bytes, bytes]) -> Iterable[tuple[bytes, bytes]]:
    if headers.keys().isdisjoint(own):
        return headers.items()
    return [(name, value) for name, value in headers.items() if name not in own]
