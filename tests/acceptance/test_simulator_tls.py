"""A fleet over the device listeners, with a password in TLS and with a certificate of each vehicle's own."""

import subprocess
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from local.platform import Platform
from mosquitto import broker, provisioning
from mosquitto.device import device
from tests.acceptance.simulation import counts, simulator

FLEET = ("--minutes", "30", "--speed", "0", "--connections", "1", "--receipts", "1")


def assert_arrived(platform: Platform, ledger: Path, devices: int) -> None:
    verified = simulator(platform, "verify", ledger)
    assert verified.returncode == 0, verified.stdout
    found = counts(verified)
    assert found["readings in the history"] == devices * 30
    assert found["acknowledged by receipt"] == found["acknowledged by PUBACK"] == devices * 30


def over_tls(
    platform: Platform, *options: str | Path, port: int, account: str = ""
) -> subprocess.CompletedProcess[str]:
    ca = platform.broker.provisioning.ca_certificate
    address = ("--mqtt-url", f"mqtts://{account}localhost:{port}", "--mqtt-ca-file", ca)
    return simulator(platform, "run", *FLEET, *address, *options)


def test_fleet_with_a_password_in_tls_arrives(platform: Platform, tmp_path: Path) -> None:
    account = urlsplit(platform.broker.url).netloc.partition("@")[0] + "@"
    options = ("--vehicles", "3", "--name", "tls-", "--ledger", tmp_path / "ledger")
    ran = over_tls(platform, *options, port=platform.broker.password_port, account=account)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert_arrived(platform, tmp_path / "ledger", 6)


def test_vehicles_with_certificates_of_their_own_arrive(platform: Platform, tmp_path: Path) -> None:
    place = platform.broker.provisioning
    names = [f"mtls-{letter}-" for letter in "abc"]
    vehicles = [device("vehicle", f"{name}EV_00000") for name in names]
    provisioning.add_certificates(place, vehicles, timedelta(days=1))
    broker.reload(place)
    for name, vehicle in zip(names, vehicles, strict=True):
        own = place.credentials(str(vehicle))
        identity = ("--mqtt-cert-file", own / "device.crt", "--mqtt-key-file", own / "device.key")
        fleet = ("--vehicles", "1", "--meters", "0", "--name", name, "--ledger", tmp_path / name)
        ran = over_tls(platform, *fleet, *identity, port=platform.broker.tls_port)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert_arrived(platform, tmp_path / name, 1)
