"""What happens to the API process, and what clients do to it."""

import contextlib
import random
import signal
import socket
from collections.abc import Iterator

from tests.acceptance.chaos.fault import Course, fault, repeatedly
from tests.acceptance.chaos.processes import Stuck
from tests.acceptance.chaos.stack import Stack
from tests.until import wait_until

_HEAD = b"POST /v1/ingest HTTP/1.1\r\nHost: chaos\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\n"
_BODIES = (b"Content-Length: 100000\r\n\r\n[{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n[{", b"\r\n", b"Content-Le")


@fault("api-kill")
def kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.kill_api()
    yield


def _crash_at(point: str) -> Course:
    def course(stack: Stack, rng: random.Random) -> Iterator[None]:
        stack.kill_api()
        crashing = stack.start_api((point, rng.randint(1, 3)))
        yield
        wait_until(lambda: crashing.exit_code == -signal.SIGKILL, f"the API's crash at {point}")

    return course


for _point in ("before-commit", "after-commit"):
    fault(f"api-crash-{_point}", alone=True)(_crash_at(_point))


@fault("api-sigterm")
def sigterm(stack: Stack, rng: random.Random) -> Iterator[None]:
    code = stack.api.stop()
    if code != 0:
        raise Stuck(f"SIGTERM: the API exits with {code}:\n{stack.api.log_tail()}")
    yield


@fault("api-broken-clients")
def broken_clients(stack: Stack, rng: random.Random) -> Iterator[None]:
    """Some say half of what they announced and stay, some go away in the middle."""
    with contextlib.ExitStack() as slow:

        def come() -> None:
            with contextlib.suppress(OSError):
                client = socket.create_connection(("127.0.0.1", stack.api_port), timeout=2)
                slow.callback(client.close)
                client.sendall(_HEAD % stack.api_key.encode() + rng.choice(_BODIES))
                if rng.random() < 0.5:
                    client.close()

        with repeatedly(come, rng, 0.005, 0.02):
            yield
