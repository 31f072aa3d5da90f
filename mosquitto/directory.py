"""The private directory of the broker's secrets; the broker itself may read only its subdirectory `broker/`.

The key of the CA and the devices' credentials are outside `broker/`.
"""

import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

ACCOUNTS = ("bridge", "gateway", "provisioner")
"""The accounts other than devices: the bridge, a gateway that publishes for many devices, and the provisioner."""


@dataclass(frozen=True, slots=True)
class Directory:
    """The paths in the directory."""

    root: Path

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def ca_key(self) -> Path:
        return self.root / "ca.key"

    @property
    def ca_certificate(self) -> Path:
        return self.broker / "ca.crt"

    @property
    def registry(self) -> Path:
        return self.root / "registry.sqlite"

    @property
    def pid_file(self) -> Path:
        return self.root / "data" / "mosquitto.pid"

    @property
    def control_url(self) -> Path:
        """Contains the URL of an internal listener, without account; the provisioner disconnects devices there."""
        return self.root / "control_url"

    @property
    def handed_out(self) -> Path:
        """The devices' credentials, until they are moved to the devices."""
        return self.root / "devices"

    def credentials(self, name: str) -> Path:
        """The directory of one device's credentials."""
        return self.handed_out / name


def accounts(directory: Directory) -> dict[str, str]:
    """The accounts' passwords and `bridge_client_id`, each generated once.

    The client id is a secret because clients of the internal listeners choose their own: a client that knows the
    bridge's could take over its session and its queue.
    """
    path = directory.root / "accounts.json"
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    made = {name: kept.get(name) or secrets.token_urlsafe(18) for name in ACCOUNTS}
    made["bridge_client_id"] = kept.get("bridge_client_id") or f"fleet-bridge-{secrets.token_urlsafe(18)}"
    if made != kept:
        replace(path, json.dumps(made).encode())
    return made


def replace(path: Path, content: bytes) -> None:
    """Write a file atomically. It keeps its owner and mode; a new one is private to its directory's owner."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    model = path if path.exists() else path.parent
    mode = model.stat().st_mode & (0o777 if model is path else 0o600)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(mode)
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            os.chown(new, model.stat().st_uid, model.stat().st_gid)
    new.replace(path)
