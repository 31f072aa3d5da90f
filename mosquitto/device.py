"""A device's name, and lists of them.

The name is `vehicle/EV_002`: the kind and the id, which is also its place below `fleet/`. It is the certificate's
common name, the user name and the client id, so that one line of the access list, `fleet/%u/telemetry`, binds a
device to its kind and its id (docs/decisions/0018-device-names.md).
"""

import csv
from pathlib import Path
from typing import NamedTuple

from bridge.contract import KIND_OF
from bridge.reading import is_device_id

LONGEST_COMMON_NAME = 64  # X.520 ub-common-name


class BadDevice(ValueError):
    """A device that cannot be provisioned as requested; the message is the reason."""


class Device(NamedTuple):
    """One device; `str` is its name on the broker."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"


def device(kind: str | None, id_: str) -> Device:
    """Validate and create a device. Raises `BadDevice`."""
    if kind is None or kind not in KIND_OF:
        raise BadDevice(f"{id_}: the kind must be {' or '.join(KIND_OF)}, not {kind}")
    if not is_device_id(id_):
        raise BadDevice(f"{id_!r}: an id must have 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return Device(kind, id_)


def read_csv(path: Path, kind: str | None) -> list[Device]:
    """The devices of a CSV file with a header: `id` and, unless `kind` is given, `kind`. Raises `BadDevice`."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "id" not in (rows.fieldnames or ()):
            raise BadDevice(f"{path}: the header has no column `id`")
        devices = []
        for row in rows:
            try:
                devices.append(device((row.get("kind") or kind or "").strip(), (row["id"] or "").strip()))
            except BadDevice as error:
                raise BadDevice(f"{path}: line {rows.line_num}: {error}") from None
    if len(set(devices)) < len(devices):
        twice = next(d for n, d in enumerate(devices) if d in devices[:n])
        raise BadDevice(f"{path}: {twice} occurs twice")
    return devices
