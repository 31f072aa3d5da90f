"""Where the platform is: the broker and the API, as URLs."""

import ssl
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

_DEFAULT_PORT = {"mqtt": 1883, "mqtts": 8883}


class Broker(NamedTuple):
    """A broker and the account on it."""

    host: str
    port: int
    username: str | None
    password: bytes | None
    tls: ssl.SSLContext | None


class Api(NamedTuple):
    """The API and the key for it."""

    url: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def broker_of(url: str, ca_file: str | None) -> Broker:
    """The broker of `mqtt[s]://[user:password@]host[:port]`. Raises `ValueError` for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORT or not parts.hostname:
        raise ValueError("the MQTT URL has the form mqtt[s]://[user:password@]host[:port]")
    return Broker(
        parts.hostname,
        parts.port or _DEFAULT_PORT[parts.scheme],
        unquote(parts.username) if parts.username else None,
        unquote(parts.password).encode() if parts.password else None,
        ssl.create_default_context(cafile=ca_file) if parts.scheme == "mqtts" else None,
    )
