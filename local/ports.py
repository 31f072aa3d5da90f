"""Free TCP ports on the loopback interface."""

import contextlib
import socket


def free_port() -> int:
    """A port that nobody listens on now. Another process may take it before you do; few ever have."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    """Whether something accepts connections there."""
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
