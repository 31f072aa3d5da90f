"""uvicorn's HTTP protocol with limits for the size and duration of headers, and for idle connections.

uvicorn limits the size of the headers for h11 only and starts its idle timer after the first response, so without this
a client could occupy a connection indefinitely.
"""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import MEDIA_TYPE, Problem

ABORT = "abort"
"""The key, in the state of a request, of the function that closes its connection without sending what is buffered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The maximum number of connections, and the maximum time and size of a request's headers."""

    connections: int
    head_timeout_s: float
    head_bytes: int


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a server with `limits`."""

    limits: ClassVar[Limits]
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._cut(Problem(503, "too many connections", {"Retry-After": "1"}))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        if self._head_timer is not None:
            self._head_bytes += 0 if self._in_body else len(data)
        if not self.transport.is_closing():
            super().data_received(data)
        if self._head_timer is not None and self._head_bytes > self.limits.head_bytes:
            self._cut(self._head_too_long())

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_done()
        if size > self.limits.head_bytes:
            self._cut(self._head_too_long())
        else:
            self._in_body = True
            self.scope["state"][ABORT] = self.transport.abort
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        # After an early response the rest of the body is read and discarded, within the time limit of headers: closing
        # the connection immediately would reset it before the client has read the response.
        self._in_body = False
        self._head_done()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._cut(Problem(400, msg))

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(
            self.limits.head_timeout_s, self._cut, Problem(408, "no request was received in time")
        )

    def _head_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_long(self) -> Problem:
        return Problem(431, f"the request's headers exceed {self.limits.head_bytes} bytes")

    def _cut(self, problem: Problem) -> None:
        self._head_done()
        if not self.transport.is_closing():
            if not self._in_body:  # in a body means: already answered
                self.transport.write(_raw(problem))
            self.transport.close()


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """A protocol class with these limits, because uvicorn expects a class and creates its instances."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})


def _raw(problem: Problem) -> bytes:
    body = problem.body()
    headers: dict[str, Any] = {
        "content-type": MEDIA_TYPE,
        "content-length": len(body),
        "connection": "close",
        **problem.headers,
    }
    head = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
    return (head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode() + body
