"""Types of settings that are validated when they are read: URLs, files and ports."""

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field

from bridge.url import split_database, split_kafka, split_mqtt, split_nats

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "primary", "standby", "prefer-standby", "read-write", "read-only"),
}
"""Parameters that asyncpg compares with a list when it connects."""


def _mqtt_url(url: str) -> str:
    split_mqtt(url)
    return url


def _nats_url(url: str) -> str:
    split_nats(url)
    return url


def _kafka_url(url: str) -> str:
    split_kafka(url)
    return url


def _http_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right:
        raise ValueError("must have the form http[s]://host[:port]")
    return url


def _database_url(url: str) -> str:
    query = split_database(url).query
    try:
        parameters = parse_qs(query, strict_parsing=bool(query))
    except ValueError:
        raise ValueError("after the question mark there must be NAME=VALUE, separated by &") from None
    for name, values in _CHOICES.items():
        if name in parameters and parameters[name][-1] not in values:
            raise ValueError(f"{name} must be one of {', '.join(values)}")
    for ca_file in parameters.get("sslrootcert", []):
        _ca_file(Path(ca_file))
    return url


def _ca_file(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"{path} contains no certificate (PEM)") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return path


def _address(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError("must be an IP address of this machine; 0.0.0.0 or :: are all of them") from None
    return address


def _hosts(names: str) -> str:
    return ",".join(_host(name) for name in names.split(",")) if names else ""


def _host(name: str) -> str:
    """The name, or the address, as a certificate has it."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        if not _HOST.fullmatch(name):
            raise ValueError("must be host names and addresses, separated by commas without spaces") from None
        return name.lower()


MqttUrl = Annotated[str, AfterValidator(_mqtt_url)]
NatsUrl = Annotated[str, AfterValidator(_nats_url)]
KafkaUrl = Annotated[str, AfterValidator(_kafka_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
CaFile = Annotated[Path, AfterValidator(_ca_file)]
Address = Annotated[str, AfterValidator(_address)]
Hosts = Annotated[str, AfterValidator(_hosts)]
"""Host names and addresses for a certificate, separated by commas."""
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0.001, le=86_400)]
"""A time limit that is not 0 in milliseconds, which would be none, and that every timer can count."""
WholeSeconds = Annotated[int, Field(ge=1, le=86_400)]
