"""The passwords of the containers, as the files that docker-compose.yml hands to them."""

import secrets
from pathlib import Path

from mosquitto import password_line


def make(directory: Path) -> Path:
    """Write what is missing and return the directory. Nothing that exists is changed: the data know these passwords.

    The directory is private; the files in it are readable, because each container's own user must read them.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    if not (directory / "fleet_database_url").exists():
        _write_all(directory)
    return directory.resolve()


def _write_all(directory: Path) -> None:
    postgres, bridge, gateway = (secrets.token_urlsafe(24) for _ in range(3))
    files = {
        "postgres_password": postgres,
        "mosquitto_passwords": password_line("bridge", bridge) + password_line("gateway", gateway),
        "fleet_bridge_mqtt_url": f"mqtt://bridge:{bridge}@mosquitto:1884",
        "fleet_mqtt_url": f"mqtt://gateway:{gateway}@mosquitto:1883",
        "fleet_api_key": "",
        # The last one: that it exists means that all the others do.
        "fleet_database_url": f"postgresql://fleet:{postgres}@postgres:5432/fleet",
    }
    for name, text in files.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
