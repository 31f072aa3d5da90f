"""The registry of provisioned devices, their credentials and all actions: an SQLite file beside the CA's key.

It contains no secrets except password hashes. Nothing is ever deleted, so that it can be determined years later which
device had access at which time.
"""

import contextlib
import getpass
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from bridge.errors import Misconfigured
from bridge.private_file import create_private
from mosquitto.device import BadDevice, Device, device

_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (
    kind TEXT NOT NULL, id TEXT NOT NULL, added_at TEXT NOT NULL, revoked_at TEXT, password_hash TEXT,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS certificate (
    serial TEXT PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, not_after TEXT NOT NULL, revoked_at TEXT
);
CREATE INDEX IF NOT EXISTS certificate_by_device ON certificate (kind, id);
CREATE TABLE IF NOT EXISTS act (at TEXT NOT NULL, actor TEXT NOT NULL, act TEXT NOT NULL, device TEXT NOT NULL);
"""
_ADD = """
INSERT INTO device (kind, id, added_at, password_hash) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET revoked_at = NULL, password_hash = excluded.password_hash
"""
_REVOKE_CERTIFICATES = "UPDATE certificate SET revoked_at = ? WHERE kind = ? AND id = ? AND revoked_at IS NULL"
_LIST = """
SELECT kind, id, added_at, revoked_at, password_hash IS NOT NULL,
       (SELECT max(not_after) FROM certificate c
        WHERE c.kind = device.kind AND c.id = device.id AND c.revoked_at IS NULL)
FROM device ORDER BY kind, id
"""


class Credential(NamedTuple):
    """A credential of a device: a certificate (serial and expiry) or a password (its hash)."""

    serial: int | None = None
    not_after: datetime | None = None
    password_hash: str | None = None


class Listed(NamedTuple):
    """A device in the output of `device list`."""

    device: Device
    added_at: str
    revoked_at: str | None
    password: bool
    certificate_until: str | None


@contextlib.contextmanager
def registry(path: Path) -> Iterator[sqlite3.Connection]:
    """The registry in one durable transaction; a second writer waits for the first.

    Raises `Misconfigured` if it is not a database, or is in use for a minute.
    """
    create_private(path, b"")
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        # EXTRA also syncs the directory after the journal is deleted: else a power failure could undo a commit.
        connection.executescript(f"PRAGMA synchronous = EXTRA; {_SCHEMA}")
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise Misconfigured(f"{path}: {error}; if the file is damaged, restore it from a backup") from error
    finally:
        connection.close()


def live(db: sqlite3.Connection, devices: Iterable[Device]) -> list[Device]:
    """The devices among these that are provisioned and not revoked."""
    known = {Device(*row) for row in db.execute("SELECT kind, id FROM device WHERE revoked_at IS NULL")}
    return [d for d in devices if d in known]


def find(db: sqlite3.Connection, kind: str | None, id_: str) -> Device:
    """The provisioned device of this id. Raises `BadDevice` when there is none, or one of several kinds."""
    query = "SELECT kind, id FROM device WHERE id = ? AND (? IS NULL OR kind = ?) AND revoked_at IS NULL"
    found = [device(*row) for row in db.execute(query, (id_, kind, kind))]
    if len(found) > 1:
        raise BadDevice(f"{id_}: devices of several kinds have this id; specify --kind")
    if not found:
        raise BadDevice(f"{id_}: the device is not provisioned")
    return found[0]


def add(db: sqlite3.Connection, credentials: Iterable[tuple[Device, Credential]], act: str) -> None:
    """Add credentials to devices; existing certificates are kept, an existing password is replaced."""
    now, given = _now(), list(credentials)
    db.executemany(_ADD, [(*d, now, c.password_hash) for d, c in given])
    certificates = [(str(c.serial), *d, c.not_after.isoformat()) for d, c in given if c.serial and c.not_after]
    db.executemany("INSERT INTO certificate (serial, kind, id, not_after) VALUES (?, ?, ?, ?)", certificates)
    _record(db, act, (d for d, _ in given))


def revoke_credentials(db: sqlite3.Connection, devices: Iterable[Device]) -> None:
    """Revoke every certificate and remove every password of the devices."""
    now, taken = _now(), list(devices)
    db.executemany(_REVOKE_CERTIFICATES, [(now, *d) for d in taken])
    db.executemany("UPDATE device SET password_hash = NULL WHERE kind = ? AND id = ?", taken)


def revoke(db: sqlite3.Connection, devices: Iterable[Device]) -> None:
    """Mark the devices as revoked."""
    now, taken = _now(), list(devices)
    revoke_credentials(db, taken)
    db.executemany("UPDATE device SET revoked_at = ? WHERE kind = ? AND id = ?", [(now, *d) for d in taken])
    _record(db, "revoke", taken)


def passwords(db: sqlite3.Connection) -> Iterator[tuple[Device, str]]:
    """Every device with a password, and its hash."""
    for kind, id_, hash_ in db.execute("SELECT kind, id, password_hash FROM device WHERE password_hash IS NOT NULL"):
        yield device(kind, id_), hash_


def revoked_certificates(db: sqlite3.Connection) -> Iterator[tuple[int, datetime]]:
    """Serial and time of revocation of every revoked certificate that has not expired."""
    query = "SELECT serial, revoked_at FROM certificate WHERE revoked_at IS NOT NULL AND not_after > ? ORDER BY serial"
    for serial, at in db.execute(query, (_now(),)):
        yield int(serial), datetime.fromisoformat(at)


def revoked_since(db: sqlite3.Connection, moment: datetime) -> Iterator[Device]:
    """The devices that were revoked after this time."""
    for row in db.execute("SELECT kind, id FROM device WHERE revoked_at > ? ORDER BY kind, id", (moment.isoformat(),)):
        yield device(*row)


def listed(db: sqlite3.Connection) -> Iterator[Listed]:
    """Every device that is or was provisioned."""
    for kind, id_, added_at, revoked_at, password, until in db.execute(_LIST):
        yield Listed(device(kind, id_), added_at, revoked_at, bool(password), until)


def _record(db: sqlite3.Connection, act: str, devices: Iterable[Device]) -> None:
    now, actor = _now(), _actor()
    db.executemany("INSERT INTO act VALUES (?, ?, ?, ?)", [(now, actor, act, str(d)) for d in devices])


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return "unknown"


def _now() -> str:
    return datetime.now(UTC).isoformat()
