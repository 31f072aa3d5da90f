"""The HTTP load generator, a separate process: `python -m tests.bench.http_flood JSON`.

Every request is encoded beforehand. Each connection sends its next one when the previous response is complete, so there
is one outstanding request for each connection. Prints `ready`, waits for a line, and reports its result.
"""

import gzip
import json
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from tests.bench.load import Load

_TYPES = {"single": "application/json", "array": "application/json", "gzip": "application/json"}
_TYPES["ndjson"] = "application/x-ndjson"
_MOST = 1 << 16


class Order(NamedTuple):
    """What to post, and where; `form` is single, array, ndjson or gzip (an array, compressed)."""

    port: int
    token: str
    form: str
    requests: int
    per_request: int
    connections: int
    devices: int
    now: str


class _Connection:
    """One keep-alive connection, with at most one outstanding request."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Add received bytes; return whether the response is complete. Raises `RuntimeError` unless 200 or 201."""
        received = self.socket.recv(_MOST)
        self._answer += received
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        if not received or (blank and b" 20" not in head[:14]):
            raise RuntimeError(f"not stored: {self._answer.decode(errors='replace') or 'the connection was closed'}")
        if not blank or len(body) < _length(head):
            return False
        self._answer = b""
        return True


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def _requests(order: Order) -> Iterator[bytes]:
    load = Load(2 * order.requests * order.per_request, order.devices, datetime.fromisoformat(order.now))
    # Single readings are vehicles', so that the reference route needs only one model; bulk posts contain both kinds.
    step = 2 if order.form == "single" else 1
    for n in range(order.requests):
        numbers = range(n * order.per_request * step, (n + 1) * order.per_request * step, step)
        yield _request(order, _BODIES[order.form]([load.message(number)[1] for number in numbers]))


_BODIES: dict[str, Callable[[list[bytes]], bytes]] = {
    "single": lambda payloads: payloads[0],
    "array": lambda payloads: b"[" + b",".join(payloads) + b"]",
    "ndjson": b"\n".join,
    "gzip": lambda payloads: gzip.compress(b"[" + b",".join(payloads) + b"]", 6),
}


def _request(order: Order, body: bytes) -> bytes:
    head = (
        f"POST /v1/ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {order.token}\r\n"
        f"Content-Type: {_TYPES[order.form]}\r\nContent-Length: {len(body)}\r\n"
    )
    return (head + ("Content-Encoding: gzip\r\n" if order.form == "gzip" else "") + "\r\n").encode() + body


def _post(requests: list[bytes], connections: list[_Connection]) -> None:
    """Send every request once, on any free connection."""
    waiting = iter(requests)
    with selectors.DefaultSelector() as selector:
        for connection, request in zip(connections, waiting, strict=False):
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(request)
        left = len(requests)
        while left:
            for key, _ in selector.select():
                if key.data.answered():
                    left -= 1
                    if (request := next(waiting, b"")) != b"":
                        key.data.send(request)


def _main(order: Order) -> None:
    requests = list(_requests(order))
    connections = [_Connection(order.port) for _ in range(order.connections)]
    _say("ready")
    sys.stdin.readline()
    began, began_cpu = time.monotonic(), time.process_time()
    _post(requests, connections)
    readings = order.requests * order.per_request
    rate, cpu_s = readings / (time.monotonic() - began), time.process_time() - began_cpu
    _say(json.dumps({"began": began, "rate": rate, "cpu_us": cpu_s / readings * 1e6}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main(Order(**json.loads(sys.argv[1])))
