"""The addresses of the broker and the API, as URLs."""

import contextlib
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from bridge.mqtt import url as mqtt_url
from bridge.mqtt.url import Broker


class Api(NamedTuple):
    """The API and the key for it."""

    url: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def broker_of(url: str, ca_file: str | None, identity: tuple[str, str] | None = None) -> Broker:
    """The broker of `mqtt[s]://[user:password@]host[:port]`; `identity` is a certificate and its key, for mqtts.

    Raises `ValueError` with the setting and the reason for anything else.
    """
    return mqtt_url.broker_of(url, lambda: _tls(ca_file, identity))


def _tls(ca_file: str | None, identity: tuple[str, str] | None) -> ssl.SSLContext:
    with _named(f"FLEET_MQTT_CA_FILE: {ca_file}"):
        context = ssl.create_default_context(cafile=ca_file)
    if identity is not None:
        with _named(f"FLEET_MQTT_CERT_FILE, FLEET_MQTT_KEY_FILE: {' and '.join(identity)}"):
            # The empty password: OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(*identity, password="")
    return context


@contextlib.contextmanager
def _named(setting: str) -> Iterator[None]:
    """Name the setting in errors about its file."""
    try:
        yield
    except ssl.SSLError as error:
        raise ValueError(f"{setting}: the file has no certificate (PEM): {error.reason or error}") from None
    except OSError as error:
        raise ValueError(f"{setting}: cannot be read: {error.strerror}") from None
