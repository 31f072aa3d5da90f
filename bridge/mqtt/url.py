"""The URL of a broker."""

import ssl
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from bridge.url import split_mqtt

_DEFAULT_PORT = {"mqtt": 1883, "mqtts": 8883}


class Broker(NamedTuple):
    """A broker and the account on it. `tls` is None for a plain connection."""

    host: str
    port: int
    username: str | None
    password: bytes | None
    tls: ssl.SSLContext | None


def broker_of(url: str, tls: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> Broker:
    """Parse `mqtt[s]://[user:password@]host[:port]`; `tls` makes the context for mqtts.

    User and password may be percent-encoded. Raises `ValueError`, which states the form, for anything else.
    """
    parts = split_mqtt(url)
    return Broker(
        parts.hostname or "",
        parts.port or _DEFAULT_PORT[parts.scheme],
        unquote(parts.username) if parts.username else None,
        unquote(parts.password).encode() if parts.password else None,
        tls() if parts.scheme == "mqtts" else None,
    )
