"""The ports of the tests' servers."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from local.ports import free_port, reserve

_DRAW = "from local.ports import free_port; print(*(free_port() for _ in range(3)))"


def drawn(first: int, last: int) -> subprocess.CompletedProcess[str]:
    """Three ports that another process with these settings draws."""
    env = {**os.environ, "FLEET_TEST_FIRST_PORT": str(first), "FLEET_TEST_LAST_PORT": str(last)}
    draw = [sys.executable, "-c", _DRAW]
    return subprocess.run(draw, env=env, capture_output=True, text=True, timeout=60, check=False)


def unused(count: int) -> int:
    """The first of so many adjacent ports that no process has or holds."""
    own = range(int(os.environ["FLEET_TEST_FIRST_PORT"]), int(os.environ["FLEET_TEST_LAST_PORT"]) - count)
    return next(port for port in own if all(map(is_unused, range(port, port + count))))


def is_unused(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
        return False


def reserved(port: int) -> int:
    assert reserve(port)
    return port


def server(port: int) -> socket.socket:
    """A server of one address with SO_REUSEADDR, as every one that the platform starts."""
    return socket.create_server(("127.0.0.1", port))


def test_few_ports_are_drawn_again() -> None:
    first = int(os.environ["FLEET_TEST_FIRST_PORT"])
    ports = {int(port) for port in drawn(first, first + 19).stdout.split()}
    assert len(ports) == 3
    assert ports < set(range(first, first + 20))


def test_as_many_ports_as_there_are_are_different() -> None:
    first = unused(3)
    assert sorted(map(int, drawn(first, first + 2).stdout.split())) == [first, first + 1, first + 2]


def test_one_port_is_enough() -> None:
    free = unused(1)
    assert drawn(free, free).stdout.split() == [str(free)] * 3


def test_port_that_this_process_drew_is_not_drawn_by_another() -> None:
    port = free_port()
    assert f"every port from {port} to {port} is in use by another program" in drawn(port, port).stderr


def test_reserved_port_is_not_drawn() -> None:
    first = unused(2)
    assert reserve(first)
    assert drawn(first, first + 1).stdout.split() == [str(first + 1)] * 3


def test_port_of_a_server_cannot_be_reserved() -> None:
    port = free_port()
    with server(port):
        assert not reserve(port)


@pytest.mark.parametrize("hold", [free_port, lambda: reserved(unused(1))], ids=["drawn", "reserved"])
def test_server_starts_and_starts_again_on_a_port_that_is_held(hold: Callable[[], int]) -> None:
    """Also where connections of the one before are in TIME_WAIT."""
    port = hold()
    for _ in range(2):
        with server(port) as started, socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            accepted, _ = started.accept()
            accepted.close()
            assert client.recv(1) == b""


def test_range_without_ports_is_refused() -> None:
    assert "FLEET_TEST_FIRST_PORT is 5001, and FLEET_TEST_LAST_PORT is less: 5000" in drawn(5_001, 5_000).stderr
