"""The passwords of the containers, as files that docker-compose.yml mounts."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge.private_file import create_private, make_private_directory, read_private
from local.postgres import LOGINS
from mosquitto import provisioning
from mosquitto.directory import Directory, accounts

_REMEDY = "restore it from a backup; if the database was never started with it, delete it and run the command again"
_BROKER_HOSTS = ("localhost", "127.0.0.1", "mosquitto")


def make(directory: Path, hosts: Sequence[str] = ()) -> Path:
    """Write missing files and return the directory. Existing files are kept, because the database has their passwords.

    The broker's certificate is renewed if it is not valid for one of `hosts`. The directory is private; the files in it
    are readable, because each container's own user must read them. Those of the broker, in `mosquitto/`, are private
    too: its container copies them for its own user as root.
    """
    make_private_directory(directory)
    directory.chmod(0o700)
    broker = Directory(directory / "mosquitto")
    provisioning.initialise(broker, _BROKER_HOSTS)
    provisioning.ensure_hosts(broker, [*_BROKER_HOSTS, *hosts])
    _make_addresses(directory, accounts(broker))
    _make_monitoring(directory)
    return directory.resolve()


def _make_addresses(directory: Path, broker: Mapping[str, str]) -> None:
    _made_once(directory / "fleet_bridge_mqtt_url", f"mqtt://bridge:{broker['bridge']}@mosquitto:1884")
    _made_once(directory / "fleet_bridge_client_id", broker["bridge_client_id"])
    _made_once(directory / "fleet_mqtt_url", f"mqtt://gateway:{broker['gateway']}@mosquitto:1883")
    _made_once(directory / "fleet_api_key", "")
    _made_once(directory / "fleet_database_url", _database_url(directory, "fleet", "postgres_password"))
    _made_once(directory / "fleet_read_database_url", "")
    for login in LOGINS:
        url = _database_url(directory, login, f"postgres_password_{login}")
        _made_once(directory / f"fleet_database_url_{login}", url)


def _make_monitoring(directory: Path) -> None:
    """The passwords of Grafana's database login and of its administrator, and a place for Prometheus' API key."""
    _made_once(directory / "postgres_password_grafana", secrets.token_urlsafe(24))
    _made_once(directory / "grafana_password", secrets.token_urlsafe(24))
    _made_once(directory / "fleet_prometheus_api_key", "")


def _database_url(directory: Path, login: str, password_file: str) -> str:
    password = _made_once(directory / password_file, secrets.token_urlsafe(24))
    return f"postgresql://{login}:{password}@postgres:5432/fleet"


def _made_once(path: Path, text: str) -> str:
    """The content of the file, which is created with `text` if missing, atomically.

    Raises `Misconfigured` for a file that is empty although it is created with a text.
    """
    create_private(path, text, mode=0o644)
    return read_private(path, _REMEDY) if text else path.read_text()
