"""Every setting, read once from `FLEET_*`. A setting that is wrong stops the start with its name and the reason."""

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.formats.port import AcceptedWindow


def _mqtt_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.port == 0:
        raise ValueError("has the form mqtt[s]://[user:password@]host[:port]")
    return url


def _database_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("has the form postgresql://[user:password@]host[:port][,...]/database")
    for host in parts.netloc.rpartition("@")[2].split(","):
        _ = urlsplit(f"//{host}").port  # raises when it is no port
    for ca_file in parse_qs(parts.query).get("sslrootcert", []):
        _ca_file(Path(ca_file))
    return url


def _ca_file(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificate (PEM)") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return path


def problems(error: ValidationError) -> str:
    """What is wrong with the settings, a line each: the variable's name and the reason."""
    lines = []
    for problem in error.errors():
        name = "_".join(map(str, problem["loc"])).upper()
        reason = problem["msg"].removeprefix("Value error, ")
        lines.append(f"FLEET_{name}: {reason}" if name else reason)
    return "\n".join(lines)


Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """The settings of the bridge and of the API. Names are the environment's, in lower case, without `FLEET_`."""

    model_config = SettingsConfigDict(env_prefix="FLEET_", frozen=True)

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        default="postgresql://fleet@127.0.0.1:5432/fleet", description="PostgreSQL, as a libpq URL."
    )
    source: str = Field(default="mqtt", description="Where the bridge reads messages from.")
    bridge_mqtt_url: Annotated[str, AfterValidator(_mqtt_url)] = Field(
        default="mqtt://127.0.0.1:1884",
        description="The broker's bridge listener: mqtt:// or mqtts://, user and password where it asks for them.",
    )
    mqtt_ca_file: Annotated[Path, AfterValidator(_ca_file)] | None = Field(
        default=None, description="CA that signed the broker's certificate; the system's when unset."
    )
    bridge_name: str = Field(
        default="main",
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        description="Names the MQTT session and the lock; of two bridges with one name the second stands by.",
    )
    bridge_client_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{1,120}$",
        description="The MQTT client id, fleet-bridge-NAME when unset. Whoever knows it and has an account could take "
        "the session over, so make it a secret where others may connect: fleet-bridge-NAME-RANDOM.",
    )
    bridge_http_host: str = Field(default="127.0.0.1", description="Where the bridge serves health and metrics.")
    bridge_http_port: Port = Field(default=9100, description="Port of the bridge's health and metrics.")
    http_host: str = Field(default="127.0.0.1", description="Where the API listens.")
    http_port: Port = Field(default=8000, description="Port of the API.")

    receive_maximum: int = Field(
        default=20_000,
        ge=1,
        le=65535,
        description="Unacknowledged MQTT messages (the window); at least twice the rate times the commit latency.",
    )
    keep_alive_s: int = Field(default=30, ge=1, le=65535, description="MQTT keep-alive in seconds.")
    session_expiry_s: int = Field(
        default=30 * 86_400, ge=1, description="How long the broker keeps the queue of a bridge that is away."
    )
    batch_size: int = Field(default=5_000, ge=1, description="Readings a transaction takes at most (by weight).")
    batch_age_ms: int = Field(default=15, ge=0, description="How long a reading waits for company.")
    http_batch_age_ms: int = Field(
        default=2, ge=0, description="The same for the API, where a client waits for the answer."
    )
    capacity: int = Field(
        default=40_000,
        ge=1,
        description="Readings in memory before the bridge stops reading from its sockets.",
    )
    http_timeout_s: float = Field(
        default=10.0, gt=0, description="After this long without a commit the API answers 503."
    )
    stall_s: float = Field(
        default=30.0,
        gt=0,
        description="Outstanding messages and no commit for this long: not ready, and the MQTT session reconnects.",
    )
    command_timeout_s: float = Field(default=30.0, gt=0, description="A database command that takes longer failed.")
    past_limit_days: float = Field(default=90.0, gt=0, description="Device times older than this are rejected.")
    future_limit_s: float = Field(default=300.0, ge=0, description="Device times further ahead than this are rejected.")
    reading_interval_s: float = Field(
        default=60.0, gt=0, description="Seconds between a device's readings; coverage counts against it."
    )
    partitions_ahead_days: int = Field(default=3, ge=0, description="Daily partitions made before their day.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: readable on a terminal, JSON elsewhere."
    )

    @property
    def accepted_window(self) -> AcceptedWindow:
        """Which device times are taken."""
        return AcceptedWindow(timedelta(days=self.past_limit_days), timedelta(seconds=self.future_limit_s))

    @property
    def client_id(self) -> str:
        """The MQTT client id: one for each bridge name, so that the session outlives the process."""
        return self.bridge_client_id or f"fleet-bridge-{self.bridge_name}"

    @property
    def status_topic(self) -> str:
        """Where the bridge's own state is retained."""
        return f"fleet/bridge/{self.bridge_name}/status"
