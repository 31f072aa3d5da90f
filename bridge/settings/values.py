"""Types of settings that are validated when they are read: URLs, files and ports."""

import ssl
from collections.abc import Collection
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field


def _mqtt_url(url: str) -> str:
    if not _is_url(url, ("mqtt", "mqtts")):
        raise ValueError("must have the form mqtt[s]://[user:password@]host[:port]")
    return url


def _http_url(url: str) -> str:
    if not _is_url(url, ("http", "https")):
        raise ValueError("must have the form http[s]://host[:port]")
    return url


def _is_url(url: str, schemes: Collection[str]) -> bool:
    """Whether it has one of these schemes, a host and, if any, a valid port."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _database_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must have the form postgresql://[user:password@]host[:port][,...]/database")
    for host in parts.netloc.rpartition("@")[2].split(","):
        _ = urlsplit(f"//{host}").port  # raises when the port is invalid
    for ca_file in parse_qs(parts.query).get("sslrootcert", []):
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


MqttUrl = Annotated[str, AfterValidator(_mqtt_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
CaFile = Annotated[Path, AfterValidator(_ca_file)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0.001, le=86_400)]
"""A time limit that is not 0 in milliseconds, which would be none, and that every timer can count."""
WholeSeconds = Annotated[int, Field(ge=1, le=86_400)]
