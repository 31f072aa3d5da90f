"""Files with secrets survive a power failure, and one that is missing or damaged is named with what to do."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from bridge.errors import Misconfigured
from local import secrets as compose_secrets
from local.postgres import Postgres
from mosquitto import authority, provisioning
from mosquitto.device import device
from mosquitto.directory import Directory

HOSTS = ["localhost", "mqtt.example.org"]
_CALL = re.compile(r"\b(openat|fsync|fdatasync|rename|renameat2?|link|linkat|mkdir|mkdirat)\((.*)\)\s+= (\d+)")
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")


def traced(directory: Path, *argv: str) -> list[tuple[str, str]]:
    """The calls that concern durability, in their order, as (name, path): of a descriptor its path, of a move its goal.

    Runs `python -m ...` under strace.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace, calls = directory / "trace", "openat,fsync,fdatasync,rename,renameat,renameat2,link,linkat,mkdir,mkdirat"
    command = ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={calls}", "-o", str(trace), sys.executable, "-m"]
    done = subprocess.run([*command, *argv], capture_output=True, text=True, check=False, timeout=60)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this machine does not allow strace")
    assert done.returncode == 0, done.stderr
    found = []
    for line in trace.read_text().splitlines():
        if (call := _CALL.search(line)) is None:
            continue
        name, arguments = call[1], call[2]
        if (descriptor := _DESCRIPTOR.match(arguments)) and "sync" in name:
            found.append(("sync", descriptor[1]))
            continue
        paths = re.findall(r'"([^"]*)"', arguments)
        if name.startswith(("rename", "link")):
            found += [("from", paths[0]), ("move", paths[-1])]
        elif name.startswith("mkdir"):
            found.append(("mkdir", paths[0]))
    return found


def assert_durable(calls: list[tuple[str, str]], root: Path) -> set[str]:
    """Each file below `root` is synced, then moved, then its directory synced; so is that of each new directory."""
    moved = set[str]()
    for at, (name, path) in enumerate(calls):
        if not Path(path).is_relative_to(root):
            continue
        if name == "move":
            assert ("sync", calls[at - 1][1]) in calls[:at], f"{path}: the content was not synced before the move"
        if name in ("move", "mkdir"):
            assert ("sync", str(Path(path).parent)) in calls[at:], f"{path}: its name was not synced"
            moved.add(str(Path(path).relative_to(root)))
    return moved


def test_secrets_are_synced_before_success_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "new" / "secrets"
    moved = assert_durable(traced(tmp_path, "local", "secrets", str(root)), tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in (tmp_path / "new").rglob("*")}
    assert moved >= written


def test_credentials_of_a_device_are_synced_before_success_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    provisioning.initialise(Directory(root), HOSTS)
    add = ("mosquitto", "device", "add", "EV_1", "--kind", "vehicle", "--dir", str(root))
    moved = assert_durable(traced(tmp_path, *add), root)
    assert moved >= {f"devices/vehicle/EV_1/{name}" for name in ("device.key", "device.crt", "ca.crt")}
    assert moved >= {"devices", "devices/vehicle", "devices/vehicle/EV_1"}


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = pytest.mark.parametrize("damage", [remove, empty, zero])


@DAMAGES
@pytest.mark.parametrize("name", ["ca.key", "broker/ca.crt", "registry.sqlite", "accounts.json"])
def test_damaged_file_of_provisioning_is_named_in_one_line(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    directory = Directory(tmp_path / "broker")
    provisioning.initialise(directory, HOSTS)
    provisioning.add_certificates(directory, [device("vehicle", "EV_1")], timedelta(days=1))
    damage(directory.root / name)
    if (name, damage) == ("accounts.json", remove):
        return  # its remedy: the next command makes new passwords
    before = {path: path.read_bytes() for path in directory.root.rglob("*") if path.is_file()}
    for argv in (["ca", "init", str(directory.root)], ["device", "revoke", "EV_1", "--dir", str(directory.root)]):
        command = [sys.executable, "-m", "mosquitto", *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert str(directory.root / name) in done.stderr
        assert "backup" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert {p: p.read_bytes() for p in directory.root.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["broker/server.crt", "broker/server.key"])
@DAMAGES
def test_damaged_certificate_of_the_broker_is_made_again(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    directory = Directory(tmp_path)
    provisioning.initialise(directory, HOSTS)
    damage(directory.root / name)
    provisioning.initialise(directory, HOSTS)
    key, certificate = directory.server_key.read_bytes(), directory.server_certificate.read_bytes()
    assert authority.belong_together(key, certificate)


@DAMAGES
@pytest.mark.parametrize("name", ["password", "data/PG_VERSION"])
def test_damaged_file_of_the_local_database_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    postgres = Postgres(tmp_path / "postgres")
    try:
        postgres.start()
    finally:
        postgres.stop()
    damage(postgres.directory / name)
    with pytest.raises(Misconfigured, match="backup") as error:
        postgres.start()
    assert str(postgres.directory / name) in str(error.value)
    assert not postgres.process.running


def test_empty_password_before_the_database_exists_is_replaced(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / "postgres")
    postgres.directory.mkdir()
    (postgres.directory / "password").touch()
    try:
        postgres.start()
        assert postgres.sql("SELECT 1") == "1"
    finally:
        postgres.stop()


@pytest.mark.parametrize("damage", [empty, zero])
def test_damaged_secret_of_the_containers_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    place = compose_secrets.make(tmp_path / "secrets")
    damage(place / "postgres_password")
    command = [sys.executable, "-m", "local", "secrets", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert str(place / "postgres_password") in done.stderr
    assert "Traceback" not in done.stderr


def test_renewed_certificate_of_the_broker_keeps_its_names(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "broker")
    provisioning.initialise(directory, ["mqtt.example.org", "192.0.2.7", "2001:db8::1"])
    before = directory.server_certificate.read_bytes()
    command = [sys.executable, "-m", "mosquitto", "ca", "server", str(directory.root)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert directory.server_certificate.read_bytes() != before
    assert provisioning.server_hosts(directory) == ["mqtt.example.org", "192.0.2.7", "2001:db8::1"]
    subprocess.run([*command, "--host", "other.example.org"], capture_output=True, check=True, timeout=60)
    assert provisioning.server_hosts(directory) == ["other.example.org"]
