"""The URLs of the broker, of the NATS and Kafka clusters and of the database.

Errors state the form only, because any part of a wrong URL may be a part of its password.
"""

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_MQTT = "mqtt[s]://[user:password@]host[:port]"
_NATS = "nats://[user:password@]host[:port][,...]"
_KAFKA = "kafka[s]://[user:password@]host[:port][,...]"
_DATABASE = "postgresql://[user:password@]host[:port][,...]/database"


def split_mqtt(url: str) -> SplitResult:
    """The parts of a broker's URL. Raises `ValueError`, which states the form."""
    parts = _split(url)
    if parts is None or parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or "," in parts.hostname:
        raise _malformed(_MQTT)
    if parts.path.strip("/") or parts.query:
        raise _malformed(_MQTT)
    return parts


def split_nats(url: str) -> list[str]:
    """The URL of each server of a cluster, with the user and password. Raises `ValueError`, which states the form."""
    parts = _split(url)
    if parts is None or parts.scheme not in ("nats", "tls") or parts.path.strip("/") or parts.query:
        raise _malformed(_NATS)
    account, at, hosts = parts.netloc.rpartition("@")
    if not all(urlsplit(f"//{host}").hostname for host in hosts.split(",")):
        raise _malformed(_NATS)
    return [f"{parts.scheme}://{account}{at}{host}" for host in hosts.split(",")]


class Account(NamedTuple):
    """Who logs in to a Kafka cluster, and whether by TLS."""

    user: str
    password: str
    tls: bool


def split_kafka(url: str) -> tuple[Account, list[str]]:
    """The account, and `host:port` of each server of a cluster. Raises `ValueError`, which states the form."""
    parts = _split(url)
    if parts is None or parts.scheme not in ("kafka", "kafkas") or parts.path.strip("/") or parts.query:
        raise _malformed(_KAFKA)
    account, _, hosts = parts.netloc.rpartition("@")
    if not all(urlsplit(f"//{host}").hostname for host in hosts.split(",")):
        raise _malformed(_KAFKA)
    user, _, password = account.partition(":")
    return Account(unquote(user), unquote(password), parts.scheme == "kafkas"), hosts.split(",")


def split_database(url: str) -> SplitResult:
    """The parts of a libpq URL with one or several hosts. Raises `ValueError`, which states the form."""
    parts = _split(url)
    if parts is None or parts.scheme not in ("postgresql", "postgres"):
        raise _malformed(_DATABASE)
    return parts


def each_database(url: str) -> list[str]:
    """A URL for each host of a libpq URL, in its order. Raises `ValueError`, which states the form."""
    parts = split_database(url)
    account, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [url]  # as given, because a URL without a host would lose its slashes
    return [parts._replace(netloc=f"{account}{at}{host}").geturl() for host in hosts.split(",")]


def database_host(url: str) -> str:
    """Where the database of a libpq URL is, without user and password: `host[:port][,...]`, for messages."""
    parts = split_database(url)
    named = parse_qs(parts.query).get("host", [])
    return parts.netloc.rpartition("@")[2] or ",".join(named) or "the default host of libpq"


def _split(url: str) -> SplitResult | None:
    """The parts; None for invalid ones, and for characters that must have been encoded."""
    try:
        parts = urlsplit(url)
        ports = [urlsplit(f"//{host}").port for host in parts.netloc.rpartition("@")[2].split(",")]
    except ValueError:
        return None
    is_clean = url.isprintable() and " " not in url and not parts.fragment
    # The password ends at the only "@": before a second one, or one after the host, it was not encoded.
    return parts if is_clean and 0 not in ports and url.count("@") == ("@" in parts.netloc) else None


def _malformed(form: str) -> ValueError:
    return ValueError(f"must have the form {form}; special characters in user and password must be percent-encoded")
