"""An unusable certificate file stops each program at start, with the setting's name, the reason and exit code 2."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from mosquitto import authority

BRIDGE, API = ("bridge", "run"), ("api", "run")
SIMULATOR = ("simulator", "run", "--vehicles=1", "--minutes=1", "--speed=0")
MISSING, NO_CERTIFICATE = "cannot be read: No such file or directory", "no certificate"


def run(arguments: tuple[str, ...], directory: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    env |= {f"FLEET_{name}": str(value) for name, value in settings.items()} | {"COLUMNS": "500"}
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", *arguments]
    env |= {"PYTHONPATH": str(root)}
    return subprocess.run(
        command,
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with a valid certificate and its key, another key, and a text."""
    key, certificate = authority.create()
    issued = authority.issue_server(authority.load(key, certificate), ["localhost"], timedelta(days=1))
    (tmp_path / "good.crt").write_bytes(issued.certificate)
    (tmp_path / "good.key").write_bytes(issued.key)
    (tmp_path / "other.key").write_bytes(key)
    (tmp_path / "text").write_text("not a certificate\n")
    return tmp_path


@pytest.mark.parametrize(("name", "reason"), [("missing", MISSING), ("text", NO_CERTIFICATE)])
@pytest.mark.parametrize("arguments", [BRIDGE, SIMULATOR])
def test_ca_file_of_no_use_is_named(files: Path, arguments: tuple[str, ...], name: str, reason: str) -> None:
    url = "mqtts://127.0.0.1:1"
    refused = run(arguments, files, MQTT_CA_FILE=files / name, MQTT_URL=url, BRIDGE_MQTT_URL=url)
    _assert_named(refused, "FLEET_MQTT_CA_FILE", files / name, reason)


@pytest.mark.parametrize(("name", "reason"), [("missing", MISSING), ("text", NO_CERTIFICATE)])
@pytest.mark.parametrize("arguments", [BRIDGE, API])
def test_ca_file_of_the_database_is_named(files: Path, arguments: tuple[str, ...], name: str, reason: str) -> None:
    url = f"postgresql://secret:hidden@127.0.0.1:1/fleet?sslmode=verify-full&sslrootcert={files / name}"
    refused = run(arguments, files, DATABASE_URL=url)
    _assert_named(refused, "FLEET_DATABASE_URL", files / name, reason)
    assert "hidden" not in refused.stderr


@pytest.mark.parametrize(
    ("certificate", "key", "named", "reason"),
    [
        ("missing", "good.key", "FLEET_TLS_CERT_FILE", MISSING),
        ("good.crt", "missing", "FLEET_TLS_KEY_FILE", MISSING),
        ("text", "good.key", "FLEET_TLS_CERT_FILE", "not a certificate"),
        ("good.crt", "text", "FLEET_TLS_KEY_FILE", "not a certificate"),
        ("good.crt", "other.key", "FLEET_TLS_KEY_FILE", "KEY_VALUES_MISMATCH"),
    ],
)
def test_certificate_of_the_api_is_named(files: Path, certificate: str, key: str, named: str, reason: str) -> None:
    refused = run(API, files, TLS_CERT_FILE=files / certificate, TLS_KEY_FILE=files / key)
    _assert_named(refused, named, files / ("missing" if reason == MISSING else key), reason)


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        ("missing", "good.key", MISSING),
        ("text", "good.key", NO_CERTIFICATE),
        ("good.crt", "other.key", "KEY_VALUES_MISMATCH"),
    ],
)
def test_certificate_of_the_simulator_is_named(files: Path, certificate: str, key: str, reason: str) -> None:
    own = {"MQTT_CERT_FILE": files / certificate, "MQTT_KEY_FILE": files / key}
    refused = run(SIMULATOR, files, MQTT_URL="mqtts://127.0.0.1:1", **own)
    _assert_named(refused, "FLEET_MQTT_CERT_FILE, FLEET_MQTT_KEY_FILE", files / certificate, reason)


def _assert_named(refused: subprocess.CompletedProcess[str], named: str, path: Path, reason: str) -> None:
    assert refused.returncode == 2, refused.stderr
    assert "Traceback" not in refused.stderr
    for text in (named, str(path), reason):
        assert text in refused.stderr
