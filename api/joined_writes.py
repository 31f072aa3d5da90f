"""A transport that sends the head of an answer together with what follows in the same iteration of the event loop.

uvicorn writes head and body one after the other. With the low limit for unsent bytes that `api.protocol` sets, each
write is a system call, and the two of an answer of a few bytes were a fifth of the time that a request takes.
"""

import asyncio

_HEAD = b"HTTP/1.1 "
_MOST_JOINED_BYTES = 16_384
"""Of what follows: to copy more would cost more than the call."""


class JoinedWrites:
    """The transport of one connection, for an HTTP protocol that writes. Bytes are sent in the order of the calls."""

    __slots__ = ("_held", "_loop", "_transport", "get_extra_info", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send, or hold a head until the next call or the next iteration."""
        if self._held:
            held, self._held = self._held, b""
            if len(data) <= _MOST_JOINED_BYTES:
                self._transport.write(held + data)
            else:
                self._transport.write(held)
                self._transport.write(data)
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._send_held)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close after what was written has been sent."""
        self._send_held()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._held = b""
        self._transport.abort()

    def _send_held(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)
