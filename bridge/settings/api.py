"""The settings of `python -m api run`."""

import ssl
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from bridge.settings.group import Group
from bridge.settings.groups import BatchSettings, LogSettings, QuotaSettings, WindowSettings, WriterSettings
from bridge.settings.values import DatabaseUrl, Port, Seconds, WholeSeconds


class ApiPortSettings(Group):
    """The port of the API, which other programs need too."""

    title: ClassVar[str] = "HTTP"

    http_port: Port = Field(default=8000, description="Port of the API.")


class HttpSettings(ApiPortSettings):
    """The HTTP server: its address and its limits."""

    http_ingest_target: Literal["database", "jetstream", "kafka"] = Field(
        default="database",
        description="Where `POST /v1/ingest` puts readings: into the database, answered with 201 after the commit, or "
        "into a stream that a bridge reads, answered with 202 when they are durable there and not yet judged.",
    )

    http_host: str = Field(default="127.0.0.1", description="Address on which the API listens.")
    http_max_connections: int = Field(
        default=4_000,
        ge=1,
        le=1_000_000,
        description="Maximum number of client connections; further ones get 503 and are closed.",
    )
    http_max_connections_per_address: int = Field(
        default=1_000,
        ge=1,
        le=1_000_000,
        description="Maximum number of client connections from one IP address; further ones get 503. Behind a proxy "
        "that does not limit its clients itself, all have its address.",
    )
    http_head_timeout_s: Seconds = Field(
        default=10.0, description="Maximum time until the request headers have arrived; then the connection is cut."
    )
    http_head_max_bytes: int = Field(
        default=16_384, ge=1_024, le=1_048_576, description="Maximum size of a request line with its headers."
    )
    http_body_timeout_s: Seconds = Field(
        default=20.0, description="Maximum time until a request's body has arrived; then it gets 408."
    )
    http_body_least_bytes_per_s: float = Field(
        default=500.0,
        ge=1,
        le=1_000_000_000,
        description="Rate at which a body must arrive after five seconds; a slower one gets 408.",
    )
    http_body_budget_mib: int = Field(
        default=64,
        ge=8,
        le=1_048_576,
        description="Memory for request bodies, decompressed; one key has a quarter of it, at least 16 MiB. Requests "
        "beyond it get 503 and Retry-After.",
    )
    http_request_timeout_s: Seconds = Field(
        default=60.0,
        description="Maximum time until an answer is sent or begins to stream, and for each piece of a stream.",
    )
    http_write_timeout_s: Seconds = Field(
        default=30.0, description="Maximum time until a client has read what is sent to it; then its connection is cut."
    )
    http_keep_alive_s: WholeSeconds = Field(default=30, description="Time after which an idle connection is closed.")
    http_shutdown_timeout_s: WholeSeconds = Field(
        default=30, description="Maximum time for the requests in flight after SIGTERM."
    )
    rate_limit_per_s: float = Field(
        default=10_000.0,
        ge=0.001,
        le=1_000_000_000,
        description="Sustained requests per second of one key; requests beyond it get 429.",
    )
    rate_limit_burst: int = Field(
        default=20_000, ge=1, le=1_000_000_000, description="Requests that one key may send at once."
    )
    cors_origins: str = Field(
        default="", description="Origins from which browsers may call, separated by commas; none when empty."
    )


class StreamSettings(Group):
    """The live stream of the API."""

    title: ClassVar[str] = "Live stream"

    stream_max: int = Field(
        default=1_000, ge=0, le=1_000_000, description="Maximum number of open live streams; further ones get 503."
    )
    stream_max_per_key: int = Field(
        default=250,
        ge=0,
        le=1_000_000,
        description="Maximum number of open live streams of one key; further ones get 429.",
    )
    stream_heartbeat_s: Seconds = Field(
        default=15.0,
        description="Time between two heartbeats of a live stream; its key is verified again with each of them.",
    )
    stream_buffer_kib: int = Field(
        default=8_192,
        ge=1,
        le=1_048_576,
        description="Maximum KiB of events that wait for a client of a live stream; then the stream is closed.",
    )
    stream_mib_per_s: float = Field(
        default=64.0,
        ge=0.001,
        le=1_000_000,
        description="MiB/s of changes up to which all live streams together get them every second; beyond it they get "
        "them less often, at least every 5 s.",
    )
    stream_whole_devices: int = Field(
        default=100_000,
        ge=0,
        le=100_000_000,
        description="Maximum number of devices of which a live stream may show all; in a larger fleet, streams need a "
        "site or ids.",
    )


class QuerySettings(Group):
    """Database queries of the API."""

    title: ClassVar[str] = "Queries"

    query_pool_size: int = Field(
        default=8, ge=1, le=10_000, description="Maximum number of connections for queries other than figures."
    )
    figures_pool_size: int = Field(
        default=8,
        ge=1,
        le=10_000,
        description="Maximum number of connections for figures: energy, efficiency, series, sessions, quality.",
    )
    query_max_per_key: int = Field(
        default=6,
        ge=1,
        le=10_000,
        description="Maximum number of questions of one key in progress, and as many about figures; further ones wait "
        "for their turn.",
    )
    query_timeout_s: Seconds = Field(
        default=10.0, description="Maximum time of a database query; then the request gets 503."
    )
    query_range_limit_days: float = Field(
        default=92.0,
        ge=0.001,
        le=3_660_000,
        description="Maximum period of one history request, and of the readings of one series.",
    )
    figures_range_limit_days: float = Field(
        default=3_660.0,
        ge=0.001,
        le=3_660_000,
        description="Maximum period of one performance, energy, sessions or quality request.",
    )


class ReplicaSettings(Group):
    """Replicas that answer questions."""

    title: ClassVar[str] = "Replicas"

    read_database_url: DatabaseUrl | None = Field(
        default=None,
        description="Streaming replicas of the database that answer live, history and figures, as a libpq URL with one "
        "or several hosts. None when unset.",
    )
    replica_lag_limit_s: Seconds = Field(
        default=5.0,
        description="Maximum age in seconds of the state that a replica shows; beyond it the primary answers instead.",
    )


class TlsSettings(Group):
    """The certificate of the API."""

    title: ClassVar[str] = "HTTP"

    tls_cert_file: Path | None = Field(
        default=None,
        description="Certificate chain of the API (PEM); enables TLS. Read again when it changes, and on SIGHUP.",
    )
    tls_key_file: Path | None = Field(default=None, description="Private key of the certificate (PEM).")

    @model_validator(mode="after")
    def _key_with_certificate(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("FLEET_TLS_CERT_FILE and FLEET_TLS_KEY_FILE must be set together")
        return self

    @model_validator(mode="after")
    def _certificate_that_can_be_used(self) -> Self:
        if self.tls_cert_file is not None and self.tls_key_file is not None:
            for name, path in (("CERT", self.tls_cert_file), ("KEY", self.tls_key_file)):
                _refuse_unreadable(f"FLEET_TLS_{name}_FILE", path)
            try:
                # With a password argument OpenSSL does not ask the terminal for that of an encrypted key.
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_cert_file, self.tls_key_file, "")
            except ssl.SSLError as error:
                given = f"{self.tls_cert_file} and {self.tls_key_file}"
                reason = error.reason or "not a certificate, or an encrypted key"
                message = (
                    f"FLEET_TLS_CERT_FILE, FLEET_TLS_KEY_FILE: {given} are not a certificate and its key ({reason})"
                )
                raise ValueError(message) from None
        return self


class HttpBatchSettings(BatchSettings):
    """The batches of the API, where a client waits for the commit."""

    http_batch_wait_ms: int = Field(
        default=2, ge=0, le=60_000, description="API: maximum time in ms a reading waits for its batch to fill."
    )
    commit_timeout_s: Seconds = Field(
        default=10.0,
        description="API: maximum time until the readings of a request are committed; then it gets 503.",
    )


class ApiSettings(
    TlsSettings,
    HttpSettings,
    StreamSettings,
    QuerySettings,
    ReplicaSettings,
    WindowSettings,
    QuotaSettings,
    HttpBatchSettings,
    WriterSettings,
    LogSettings,
):
    """All settings of `api run`."""


def _refuse_unreadable(setting: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise ValueError(f"{setting}: {path} cannot be read: {error.strerror}") from None
