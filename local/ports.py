"""TCP ports on the loopback interface."""

import contextlib
import random
import socket
from collections import deque
from dataclasses import dataclass, fields

from bridge.errors import Misconfigured

_OWN = (15_000, 32_000)
_random = random.SystemRandom()  # a seed that somebody sets would give two processes the same ports
_drawn: deque[int] = deque(maxlen=1_000)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts of a platform listen."""

    http: int
    bridge_http: int
    mqtt: int
    mqtt_tls: int
    mqtt_password: int
    postgres: int


class PortTaken(Misconfigured):
    """Somebody else listens on a port that was asked for by name."""


def pick(setting: str, port: int, given: bool) -> int:
    """`port`, or a free one when it is only the default and taken. Raises `PortTaken` when it was `given`."""
    if is_free(port):
        return port
    if given:
        raise PortTaken(f"{setting}: port {port} is taken by another program; stop that one or choose another port")
    return free_port()


def free_ports() -> Ports:
    """Ports that nobody listens on now."""
    return Ports(*(free_port() for _ in fields(Ports)))


def free_port() -> int:
    """A port that nobody listens on now, below those that the kernel lends to outgoing connections.

    This process gets none twice in a thousand, so a server may ask for all of its ports before it listens on the
    first. Another process may take it before you do; drawn at random from thousands, few ever have.
    """
    while (port := _random.randrange(*_OWN)) in _drawn or not is_free(port):
        pass
    _drawn.append(port)
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen there now. Connections that linger from an earlier one do not count."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def is_open(port: int) -> bool:
    """Whether something accepts connections there."""
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
