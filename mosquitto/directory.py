"""The private directory of the broker's secrets; the broker itself may read only its subdirectory `broker/`.

The key of the CA and the devices' credentials are outside `broker/`.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.private_file import create_private, read_private, write_private

_ACCOUNTS_REMEDY = (
    "restore it from a backup; or delete it, run the command again for new passwords, and give them to the bridge and "
    "the gateways (a new client id of the bridge leaves its old queue behind)"
)
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
    def server_key(self) -> Path:
        return self.broker / "server.key"

    @property
    def server_certificate(self) -> Path:
        return self.broker / "server.crt"

    @property
    def accounts(self) -> Path:
        return self.root / "accounts.json"

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
    bridge's could take over its session and its queue. Raises `Misconfigured` if the file is damaged.
    """
    path = directory.accounts
    create_private(path, "{}")
    kept = _kept(path)
    made = {name: kept.get(name) or secrets.token_urlsafe(18) for name in ACCOUNTS}
    made["bridge_client_id"] = kept.get("bridge_client_id") or f"fleet-bridge-{secrets.token_urlsafe(18)}"
    if made != kept:
        write_private(path, json.dumps(made))
    return made


def _kept(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(read_private(path, _ACCOUNTS_REMEDY))
    except ValueError:
        kept = None
    if not isinstance(kept, dict):
        raise Misconfigured(f"{path} is damaged: {_ACCOUNTS_REMEDY}")
    return kept
