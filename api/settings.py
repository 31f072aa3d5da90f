"""The settings that only the API has, on top of the bridge's."""

import ssl
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from bridge.settings import Settings


class ApiSettings(Settings):
    """Every setting of the API process, read once from `FLEET_*`."""

    http_read_connections: int = Field(default=8, ge=1, description="Database connections that answer questions.")
    http_read_timeout_s: float = Field(
        default=10.0, gt=0, description="A question that the database has not answered by then gets 503."
    )
    http_connections: int = Field(
        default=4_000, ge=1, description="Client connections at a time; further ones are told 503 and closed."
    )
    http_head_timeout_s: float = Field(
        default=10.0, gt=0, description="A connection that has not sent its request's head by then is cut."
    )
    http_head_bytes: int = Field(default=16_384, ge=1_024, description="Longest request line and headers.")
    http_body_timeout_s: float = Field(default=20.0, gt=0, description="A body that has not arrived by then gets 408.")
    http_keep_alive_s: int = Field(default=30, ge=1, description="How long an idle connection is kept.")
    http_request_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="Longest time until an answer is sent or begins to stream, and for each piece of a stream.",
    )
    http_body_budget_mib: int = Field(
        default=256, ge=8, description="Bodies in memory at a time; requests beyond get 503 and Retry-After."
    )
    http_shutdown_s: int = Field(default=30, ge=1, description="How long requests in flight may take after SIGTERM.")
    range_limit_days: float = Field(
        default=92.0, gt=0, description="Longest period that one history or analytics question may span."
    )
    rate_limit_per_s: float = Field(
        default=10_000.0, gt=0, description="Requests per second that one key may keep up; beyond it gets 429."
    )
    rate_limit_burst: int = Field(default=20_000, ge=1, description="Requests that one key may send at once.")
    cors_origins: str = Field(
        default="", description="Origins that browsers may call from, separated by commas; none when empty."
    )
    tls_cert_file: Path | None = Field(default=None, description="Certificate chain (PEM) of the API; enables TLS.")
    tls_key_file: Path | None = Field(default=None, description="Private key (PEM) of the certificate.")

    @model_validator(mode="after")
    def _key_with_certificate(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("FLEET_TLS_CERT_FILE and FLEET_TLS_KEY_FILE belong together")
        return self

    @model_validator(mode="after")
    def _certificate_that_can_be_used(self) -> Self:
        if self.tls_cert_file is not None and self.tls_key_file is not None:
            for name, path in (("CERT", self.tls_cert_file), ("KEY", self.tls_key_file)):
                _refuse_unreadable(f"FLEET_TLS_{name}_FILE", path)
            try:
                # The empty password: OpenSSL would ask the terminal for that of an encrypted key.
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_cert_file, self.tls_key_file, "")
            except ssl.SSLError as error:
                given = f"{self.tls_cert_file} and {self.tls_key_file}"
                reason = error.reason or "no certificate, or no key that is not encrypted"
                message = f"FLEET_TLS_CERT_FILE, FLEET_TLS_KEY_FILE: {given} are no certificate and its key ({reason})"
                raise ValueError(message) from None
        return self


def _refuse_unreadable(setting: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise ValueError(f"{setting}: {path} cannot be read: {error.strerror}") from None
