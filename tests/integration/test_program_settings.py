"""Programs as processes: what they say of their environment at the start."""

import subprocess
import sys
from pathlib import Path

import pytest

from local.ports import free_port
from tests.bridges import environment

PROGRAMS = [
    ("bridge", "migrate"),
    ("bridge", "rejected", "list"),
    ("api", "key", "list"),
]


def run(directory: Path, *arguments: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    """The program without a database, in a directory of its own, logging JSON."""
    nowhere = f"postgresql://fleet@127.0.0.1:{free_port()}/fleet"
    env = environment(**{"database_url": nowhere, "log_format": "json", **settings})
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_wrong_settings_of_the_services_do_not_stop_a_command(tmp_path: Path, program: tuple[str, ...]) -> None:
    of_services = {"bridge_mqtt_url": "x", "mqtt_ca_file": "/nowhere", "http_port": "x", "batch_size": "x"}
    said = run(tmp_path, *program, tls_cert_file="/nowhere", **of_services)
    assert said.returncode == 1, "the database was asked, and is not there"
    assert "FLEET_" not in said.stderr


def test_wrong_setting_of_a_program_names_it(tmp_path: Path) -> None:
    said = run(tmp_path, "bridge", "run", batch_size="x", stall_s="x", bridge_name="a/b")
    assert said.returncode == 2
    assert [line.partition(":")[0] for line in sorted(said.stderr.splitlines())] == [
        "FLEET_BATCH_SIZE",
        "FLEET_BRIDGE_NAME",
        "FLEET_STALL_S",
    ]
