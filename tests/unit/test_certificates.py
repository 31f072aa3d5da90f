"""The metric of when certificates expire follows the files."""

import math
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bridge.certificates import measure
from mosquitto import authority


def test_expiry_follows_the_file(tmp_path: Path) -> None:
    ca, path, registry = authority.load(*authority.create()), tmp_path / "server.crt", CollectorRegistry()
    measure(registry, [path])

    def value() -> float | None:
        return registry.get_sample_value("fleet_certificate_expiry_timestamp_seconds", {"file": str(path)})

    missing = value()
    assert missing is not None
    assert math.isnan(missing)
    for days in (3, 30):
        issued = authority.issue_server(ca, ["localhost"], timedelta(days=days))
        path.write_bytes(issued.certificate)
        assert value() == pytest.approx(issued.not_after.timestamp(), abs=1)
