"""uvicorn's HTTP protocol with limits for what one connection, and the connections of one address, can occupy.

uvicorn limits the size of the headers for h11 only, starts its idle timer after the first response, waits without limit
until a client reads an answer, and queues any number of pipelined requests, so without this a client could occupy
connections and memory indefinitely. A request to upgrade is answered in HTTP/1.1, and a client that has shut down its
sending side gets its answers (RFC 9110 7.8, RFC 9112 9.6).
"""

import asyncio
import contextlib
import socket
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.joined_writes import JoinedWrites
from api.problems import MEDIA_TYPE, Problem

ABORT = "abort"
"""The key, in the state of a request, of the function that closes its connection without sending what is buffered."""
HAS_KEY = "has_key"
"""The key of the function that tells that the connection has sent a valid API key."""
IS_GONE = "is_gone"
"""The key of the function that tells whether the connection is closed, so that no answer can be sent."""
WRITTEN = "written"
"""The key of the function that waits until the client has read what was sent to it, but for the kernel's buffers."""
IS_WHOLE = "is_whole"
"""The key of the function that tells whether all of the request's body has arrived."""
ENDS_WITH_CLIENT = "ends_with_client"
"""The key of the function that tells that the answer has no end of its own: it ends when the client stops sending."""

_MOST_PIPELINED = 4
"""Requests that wait for the answer to an earlier one; each costs, and few clients send any."""
_SEND_BUFFER_BYTES = 256 * 1024
"""Of the kernel, for each connection: its default grows to megabytes for a client that does not read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections can occupy."""

    connections: int
    connections_per_address: int
    """Of one IP address."""
    connections_without_key: int
    """Of clients that have not sent a valid API key yet; the oldest one is closed for a further one."""
    head_timeout_s: float
    head_bytes: int
    write_timeout_s: float
    """Until a client has read what was sent to it; then its connection is aborted."""


@dataclass(slots=True)
class Open:
    """The open connections of a server."""

    by_address: Counter[str] = field(default_factory=Counter)
    without_key: dict["BoundedProtocol", None] = field(default_factory=dict)
    """In the order in which they were opened."""


class _Refused(Exception):
    """A request that is refused at its head: the parser stops, whose next call would be about its body."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a server with `limits`."""

    limits: ClassVar[Limits]
    open: ClassVar[Open]
    _address: str | None = None
    _answered: RequestResponseCycle | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_body = False
    _write_timer: asyncio.TimerHandle | None = None
    _is_half_closed = False
    _ends_with_client = False
    _last_words: Problem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Paused as soon as anything waits: so the time until a client reads is that of a single write.
        transport.set_write_buffer_limits(high=1, low=0)
        if (connection := transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.transport = JoinedWrites(transport)  # type: ignore[assignment]  # has all that is called
        self._told = {
            ABORT: self._abort,
            HAS_KEY: self._has_key,
            IS_GONE: self.transport.is_closing,
            WRITTEN: self.flow.drain,
            IS_WHOLE: self._is_whole,
            ENDS_WITH_CLIENT: self._end_with_client,
        }
        self._address = self.client[0] if self.client else ""
        self.open.by_address[self._address] += 1
        if len(self.connections) > self.limits.connections:
            self._cut(Problem(503, "too many connections", {"Retry-After": "1"}))
        elif self.open.by_address[self._address] > self.limits.connections_per_address:
            self._cut(Problem(503, f"too many connections from {self._address}", {"Retry-After": "1"}))
        else:
            self._await_head()
            self._without_key()

    def _without_key(self) -> None:
        self.open.without_key[self] = None
        if len(self.open.without_key) > self.limits.connections_without_key:
            oldest = next(iter(self.open.without_key))
            del self.open.without_key[oldest]
            oldest._abort()

    def _has_key(self) -> None:
        self.open.without_key.pop(self, None)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _abort(self) -> None:
        self._discard_answers()
        self.transport.abort()

    def _discard_answers(self) -> None:
        """Tell every request of the connection that it has ended; uvicorn tells the one that was received last."""
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (self._answered, *waiting):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._discard_answers()
        self._head_done()
        self._written()
        self.open.without_key.pop(self, None)
        if self._address is not None:
            self.open.by_address[self._address] -= 1
            if not self.open.by_address[self._address]:
                del self.open.by_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        if self._head_timer is not None:
            self._head_bytes += 0 if self._in_body else len(data)
        while data and self._last_words is None and not self.transport.is_closing():
            data = self._parsed(data)
        if self._head_timer is not None and self._head_bytes > self.limits.head_bytes:
            self._cut(self._head_too_long())

    def _parsed(self, data: bytes) -> bytes:
        """Parse; returns what is still to be parsed after the head of a request to upgrade."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser takes what follows for another protocol. It is the body, which another parser gets.
            head, self.parser = self._head_without_upgrade(), httptools.HttpRequestParser(self)
            return head + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        return b""

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                value = b", ".join(token for token in tokens if token.lower() != b"upgrade")  # noqa: PLW2901
            if name != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open for the answers that the client still waits for."""
        waits = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        waits = waits or self._last_words is not None
        self._is_half_closed = waits and not self._ends_with_client and self.scheme == "http"  # TLS has no such state
        return self._is_half_closed

    def on_response_complete(self) -> None:
        super().on_response_complete()
        is_idle = self._answered is not None and self._answered.response_complete
        if self._last_words is not None and is_idle:
            self.transport.write(_raw(self._last_words))
            self.transport.close()
        if self._is_half_closed and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self._abort)

    def resume_writing(self) -> None:
        self._written()
        super().resume_writing()

    def _written(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._cut(Problem(405, "this is no proxy"))
                raise _Refused
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_done()
        if size > self.limits.head_bytes:
            self._cut(self._head_too_long())
            raise _Refused
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._abort()
            raise _Refused
        self._in_body = True
        self.scope["state"] |= self._told
        super().on_headers_complete()

    def _is_whole(self) -> bool:
        return self._answered is not None and not self._answered.more_body

    def _end_with_client(self) -> None:
        self._ends_with_client = True

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():  # not complete: see `_parsed`
            return
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
        """Refuse what arrives, after the answers to earlier requests, and close the connection."""
        self._head_done()
        if self.transport.is_closing() or self._last_words is not None:
            return
        own = self.cycle if self._in_body else None
        answered = self._answered
        if answered is not None and answered is not own and not answered.response_complete:
            if not self._ends_with_client:
                if own is not None:
                    self.pipeline.popleft()  # the last that was received
                self._last_words = problem
                return
        elif own is None or not own.response_started:
            self.transport.write(_raw(problem))
        self.transport.close()


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """A protocol class with these limits, because uvicorn expects a class and creates its instances."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits, "open": Open()})


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
