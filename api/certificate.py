"""The certificate of the API: read again when its files change or on SIGHUP, without a restart."""

import asyncio
import signal
import ssl
from datetime import UTC, datetime
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from bridge.certificates import expires_at, expiry_gauge

log = structlog.get_logger(__name__)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2 only ciphers with forward secrecy and authenticated encryption; those of TLS 1.3 all have both."""
_EVERY_S = 5.0
_Stamp = tuple[tuple[int, int, int], ...]


class ServedCertificate:
    """Keeps the certificate of a TLS context up to date. New connections get the new one; open ones go on."""

    def __init__(self, context: ssl.SSLContext, certificate: Path, key: Path, registry: CollectorRegistry) -> None:
        self._context, self._certificate, self._key = context, certificate, key
        self._expiry = expiry_gauge(registry).labels(str(certificate))
        self._expiry.set(expires_at(certificate).timestamp())
        self._seen = self._stamp()
        self._asked = asyncio.Event()

    async def watch(self) -> None:
        """Look for changed files every five seconds, and at once after SIGHUP."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)
        while True:
            try:
                await asyncio.wait_for(self._asked.wait(), _EVERY_S)
            except TimeoutError:
                if self._stamp() == self._seen:
                    continue
            self._asked.clear()
            self._reload()

    def _reload(self) -> None:
        """Use the files if they are a certificate and its key; else keep the old ones, and say why in the log."""
        self._seen = self._stamp()  # first, so that a change during the reload is seen afterwards
        try:
            # A context keeps the new certificate when the key does not fit it, so another one is tried first.
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._context):
                context.load_cert_chain(self._certificate, self._key, "")
            until = expires_at(self._certificate)
        except (OSError, ValueError) as error:
            log.error("certificate not reloaded, the old one is served", reason=str(error))
            return
        self._expiry.set(until.timestamp())
        log.info("certificate reloaded", days_left=(until - datetime.now(UTC)).days)

    def _stamp(self) -> _Stamp:
        """What changes with the files; empty while one is missing."""
        try:
            found = [path.stat() for path in (self._certificate, self._key)]
        except OSError:
            return ()
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)
