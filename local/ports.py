"""TCP ports on the loopback interface."""

import contextlib
import random
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields

from bridge.errors import Misconfigured

_OWN = (15_000, 32_000)
_random = random.SystemRandom()  # with a seeded generator, two processes would choose the same ports
_drawn: deque[int] = deque(maxlen=1_000)


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of the parts of a platform."""

    http: int
    bridge_http: int
    keeper_http: int
    mqtt: int
    mqtt_tls: int
    mqtt_password: int
    postgres: int


class PortTaken(Misconfigured):
    """Other programs listen on ports that were set explicitly."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        lines = (f"{setting}: port {port} is in use by another program" for setting, port in ports.items())
        super().__init__("\n".join([*lines, "stop these programs or choose other ports"]))


def free_ports() -> Ports:
    """Unused ports."""
    return Ports(*(free_port() for _ in fields(Ports)))


def free_port() -> int:
    """An unused port below the kernel's range for outgoing connections.

    The last thousand ports returned in this process are different, so that a server may choose all of its ports before
    it listens on the first. Another process may use the port first, which is unlikely: it is one of thousands.
    """
    while (port := _random.randrange(*_OWN)) in _drawn or not is_free(port):
        pass
    _drawn.append(port)
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now. Connections of an earlier server in TIME_WAIT do not matter."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server accepts connections on the port of an address, or of all addresses (0.0.0.0, ::)."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
