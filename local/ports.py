"""TCP ports on the loopback interface."""

import atexit
import os
import random
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import chain

from bridge.errors import Misconfigured
from bridge.settings.development import SuiteSettings

_random = random.SystemRandom()  # with a seeded generator, two processes would choose the same ports
_MOST_HELD = 250
_held: deque[socket.socket] = deque()
"""A socket bound to each port that was drawn or reserved. It does not listen, so a server with SO_REUSEADDR can."""


@atexit.register
def _release() -> None:
    while _held:
        _held.popleft().close()


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

    This process holds the last 250 of its ports until it ends, or all but one of its range: neither it nor another
    process draws one of them, nor is one an outgoing connection's. So a server may choose all of its ports before it
    listens on the first, and start on them again. Any server with SO_REUSEADDR can listen on a held port. Raises
    `Misconfigured` if the settings leave no port, or other programs have them all.
    """
    own = _own()
    while True:
        begin = _random.randrange(len(own))
        for port in chain(own[begin:], own[:begin]):
            if _hold(port, shared=False):
                return port
        if not _held:
            raise Misconfigured(f"every port from {own[0]} to {own[-1]} is in use by another program")
        _held.popleft().close()


def reserve(port: int) -> bool:
    """Whether a server could listen on the port now; if so, hold it as one that was drawn.

    Another process may hold it, too, and connections of an earlier server in TIME_WAIT do not matter.
    """
    return _hold(port, shared=True)


def _hold(port: int, *, shared: bool) -> bool:
    holder = socket.socket()
    try:
        if shared:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        return False
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # from now on the holder is in no server's way
    _held.append(holder)
    if len(_held) > _MOST_HELD:
        _held.popleft().close()
    return True


@cache
def _own() -> range:
    settings = SuiteSettings.read(os.environ)
    first, last = settings.test_first_port, settings.test_last_port
    if first > last:
        raise Misconfigured(f"FLEET_TEST_FIRST_PORT is {first}, and FLEET_TEST_LAST_PORT is less: {last}")
    return range(first, last + 1)


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server accepts connections on the port of an address, or of all addresses (0.0.0.0, ::)."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
