"""Writes the broker's files and makes a running broker apply them: reload by SIGHUP, disconnect by client take-over.

According to Mosquitto 2's source, and verified by tests, on SIGHUP it reloads passwords, access list and revocation
list; a client whose password was removed is disconnected; one whose certificate is revoked is not. The latter therefore
gets a `deny`, and its connection is closed by a connection of the provisioner with its client id.
"""

import contextlib
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

from bridge.contract import KINDS
from bridge.formats import FORMATS
from bridge.mqtt.codec import ConnAckReasonCode, ConnectPacket
from bridge.mqtt.session import Ended, Session
from bridge.mqtt.url import broker_of
from bridge.private_file import read_private, write_private
from mosquitto import password_line
from mosquitto.authority import Authority, revocation_list
from mosquitto.device import Device
from mosquitto.directory import ACCOUNTS, Directory, accounts
from mosquitto.registry import passwords, revoked_certificates, revoked_since

_DENIED_FOR = timedelta(days=1)
_TIMEOUT_S = 10.0


class BrokerUnreachable(Exception):
    """The broker runs, or should run, and could not be reloaded or reached."""


def write_files(directory: Directory, authority: Authority, db: sqlite3.Connection) -> None:
    """Generate passwords, acl and crl.pem from the registry."""
    internal = accounts(directory)
    lines = [password_line(name, internal[name]) for name in ACCOUNTS]
    lines += [f"{device}:{hash_}\n" for device, hash_ in passwords(db)]
    write_private(directory.broker / "passwords", "".join(lines))
    write_private(directory.broker / "acl", _acl(revoked_since(db, datetime.now(UTC) - _DENIED_FOR)))
    write_private(directory.broker / "crl.pem", revocation_list(authority, revoked_certificates(db)))


def _acl(revoked: Iterable[Device]) -> str:
    """The access list, with a denial for each recently revoked device.

    A connection that completed its TLS handshake before the revocation may send CONNECT after it; Mosquitto closes a
    connection without CONNECT after two minutes. After a day the denial is removed, so the list stays short.
    """
    return access_list() + "".join(f"\nuser {device}\ntopic deny #\n" for device in revoked)


def access_list() -> str:
    """The static lines; those for a kind of device or a topic of a format are repeated for each."""
    values = {"{kind}": [kind.name for kind in KINDS], "{format}": [t for format_ in FORMATS for t in format_.topics]}
    lines: list[str] = []
    for line in (files("mosquitto") / "acl").read_text().splitlines():
        name = next((name for name in values if name in line and not line.startswith("#")), None)
        lines += [line] if name is None else [line.replace(name, value) for value in values[name]]
    return "\n".join(lines) + "\n"


def running_pid(directory: Directory) -> int | None:
    """The process of the broker that uses this directory; None if it does not run on this machine."""
    try:
        pid = int(directory.pid_file.read_text())
        status = _status(pid)
    except (OSError, ValueError):
        return None
    # The file may be stale, and the id may belong to another process or to a zombie.
    return pid if status["Name"] == "mosquitto" and status["State"][0] != "Z" else None


def _status(pid: int) -> dict[str, str]:
    """The fields of /proc/<pid>/status by name. Raises `OSError` when there is no such process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def reload(directory: Directory) -> bool:
    """Make a running broker reload its files; False when none runs here. Raises `BrokerUnreachable`."""
    deadline = time.monotonic() + _TIMEOUT_S
    while (pid := running_pid(directory)) is not None:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if _minds_hangup(pid):
                os.kill(pid, signal.SIGHUP)
                return True
        if time.monotonic() > deadline:
            raise BrokerUnreachable("the broker has not installed its SIGHUP handler yet")
        time.sleep(0.01)
    return False


def _minds_hangup(pid: int) -> bool:
    """Whether it has a handler for SIGHUP: a broker opens its listeners earlier, and until then the signal kills it."""
    return bool(int(_status(pid)["SigCgt"], 16) >> (signal.SIGHUP - 1) & 1)


def disconnect(directory: Directory, devices: Iterable[Device]) -> None:
    """Close the devices' connections and sessions. Raises `BrokerUnreachable`."""
    remedy = "write the URL of the listener 1884 to it, mqtt://HOST:PORT, or run `ca init` with --control"
    url = read_private(directory.control_url, remedy).strip()
    password = accounts(directory)["provisioner"]
    for device in devices:
        try:
            _take_over(url, password, str(device))
        except (OSError, ValueError) as error:
            raise BrokerUnreachable(f"{device} may still be connected: cannot reach {url}: {error}") from error


def _take_over(url: str, password: str, client_id: str) -> None:
    """Connect with a clean start as `client_id`, so that the broker closes the other connection (MQTT-3.1.4-3)."""
    broker = broker_of(url)
    session = Session(ConnectPacket(client_id, username="provisioner", password=password.encode(), clean_start=True))
    with socket.create_connection((broker.host, broker.port), _TIMEOUT_S) as connection:
        session.connect(time.monotonic())
        connection.sendall(session.data_to_send())
        while session.connack is None:
            if not (received := connection.recv(1024)):
                raise OSError("the connection was closed")
            for event in session.receive_data(received, time.monotonic()):
                if isinstance(event, Ended):
                    raise OSError(event.reason)
        if session.connack.reason_code != ConnAckReasonCode.SUCCESS:
            raise OSError(f"the broker refused: {session.connack.reason_code.name}")
        session.disconnect()
        connection.sendall(session.data_to_send())
