"""When certificates expire."""

import math
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from prometheus_client import CollectorRegistry, Gauge


def expires_at(path: Path) -> datetime:
    """When the first certificate of a file (PEM) expires. Raises `OSError`, `ValueError`."""
    return min(certificate.not_valid_after_utc for certificate in x509.load_pem_x509_certificates(path.read_bytes()))


def expiry_gauge(registry: CollectorRegistry) -> Gauge:
    """The metric of the expiry, in Unix time, by file."""
    return Gauge(
        "fleet_certificate_expiry_timestamp_seconds",
        "When the first certificate of the file expires (Unix time); NaN if it cannot be read.",
        ["file"],
        registry=registry,
    )


def measure(registry: CollectorRegistry, paths: Iterable[Path]) -> None:
    """Export the expiry of files, which are read again for every scrape."""
    if known := list(paths):
        gauge = expiry_gauge(registry)
        for path in known:
            gauge.labels(str(path)).set_function(partial(_expiry_s, path))


def _expiry_s(path: Path) -> float:
    try:
        return expires_at(path).timestamp()
    except (OSError, ValueError):
        return math.nan
