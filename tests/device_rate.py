"""The limits of mosquitto/device-rate.nft, in a network that is the process's own: the machine's stays as it is."""

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from importlib.resources import files
from pathlib import Path

_UNPACKED = Path(__file__).resolve().parents[1] / ".servers" / "nftables" / "usr" / "sbin"
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_PORTS = "elements = { 8883, 8884 }"


def enter_own_network() -> None:
    """Move the calling thread, and what it starts, to a network that has only a loopback device. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot make a network of its own: this needs root")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def limit(*ports: int) -> None:
    """Load the limits for these device listeners."""
    text = (files("mosquitto") / "device-rate.nft").read_text()
    assert _PORTS in text
    elements = f"elements = {{ {', '.join(map(str, ports))} }}"
    subprocess.run([_program(), "-f", "-"], input=text.replace(_PORTS, elements), text=True, check=True, timeout=30)


def rules() -> str:
    """What the kernel has of them, with the counters."""
    command = [_program(), "list", "table", "inet", "fleet-device-rate"]
    return subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE, timeout=30).stdout


def _program() -> str:
    found = shutil.which("nft", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", str(_UNPACKED))))
    assert found, "nft is missing: `sh scripts/nftables .servers/nftables` gets it, as `make test` does"
    return found
