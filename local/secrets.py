"""The passwords of the containers, as the files that docker-compose.yml hands to them."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from mosquitto import provisioning
from mosquitto.directory import Directory, accounts

_BROKER_HOSTS = ("localhost", "127.0.0.1", "mosquitto")


def make(directory: Path) -> Path:
    """Write what is missing and return the directory. Nothing that exists is changed: the data know these passwords.

    The directory is private; the files in it are readable, because each container's own user must read them. Those
    of the broker, in `mosquitto/`, are private too: its container takes copies for its own user as root.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    broker = Directory(directory / "mosquitto")
    provisioning.initialise(broker, _BROKER_HOSTS)
    if not (directory / "fleet_database_url").exists():
        _write_all(directory, accounts(broker))
    return directory.resolve()


def _write_all(directory: Path, broker: Mapping[str, str]) -> None:
    postgres = secrets.token_urlsafe(24)
    files = {
        "postgres_password": postgres,
        "fleet_bridge_mqtt_url": f"mqtt://bridge:{broker['bridge']}@mosquitto:1884",
        "fleet_bridge_client_id": broker["bridge_client_id"],
        "fleet_mqtt_url": f"mqtt://gateway:{broker['gateway']}@mosquitto:1883",
        "fleet_api_key": "",
        # The last one: that it exists means that all the others do.
        "fleet_database_url": f"postgresql://fleet:{postgres}@postgres:5432/fleet",
    }
    for name, text in files.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
