"""Programs as processes: what they say of their environment at the start."""

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest

from bridge.errors import Reason
from local.ports import free_port
from local.postgres import Postgres
from simulator.ledger import LedgerWriter
from simulator.message import STORED, Item
from tests.bridges import environment

PROGRAMS = [
    ("bridge", "migrate"),
    ("bridge", "rejected", "list"),
    ("api", "key", "list"),
    ("api", "openapi"),
    ("simulator", "verify", "missing"),
    ("mosquitto", "device", "list", "--dir=devices"),
    ("local", "settings", "page.md"),
]


def run(
    directory: Path, *arguments: str, others: Mapping[str, str] | None = None, **settings: object
) -> "subprocess.CompletedProcess[str]":
    """The program without a database, in a directory of its own, logging JSON."""
    nowhere = f"postgresql://fleet@127.0.0.1:{free_port()}/fleet"
    env = environment(**{"database_url": nowhere, "log_format": "json", **settings}) | dict(others or {})
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False, timeout=60)


def warnings(program: "subprocess.CompletedProcess[str]") -> list[tuple[str, str, str | None]]:
    """Event, setting and the name to use of each warning."""
    events = [json.loads(line) for line in program.stderr.splitlines() if line.startswith("{")]
    return [
        (event["event"], event["setting"], event.get("nearest", event.get("use")))
        for event in events
        if event["level"] == "warning" and "setting" in event
    ]


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_every_program_warns_of_names_that_it_cannot_use(tmp_path: Path, program: tuple[str, ...]) -> None:
    (tmp_path / "devices").mkdir()
    of_others: dict[str, Any] = {
        "local_dir": "x",
        "postgres_shared_buffers": "1GB",
        "mosquitto_dir": "x",
        "fuzz": "1",
        "http_port": "9",
    }
    lower = {"fleet_http_port": "9"}
    said = run(tmp_path, *program, others=lower, http_prot="1", qqqq="1", http_timeout_s="3", **of_others)
    assert warnings(said) == [
        ("renamed setting", "FLEET_HTTP_TIMEOUT_S", "FLEET_COMMIT_TIMEOUT_S"),
        ("unknown setting", "FLEET_HTTP_PROT", "FLEET_HTTP_PORT"),
        ("unknown setting", "FLEET_QQQQ", None),
        ("unknown setting", "fleet_http_port", "FLEET_HTTP_PORT"),
    ]


@pytest.mark.parametrize("program", PROGRAMS[:3], ids=" ".join)
def test_wrong_settings_of_the_services_do_not_stop_a_command(tmp_path: Path, program: tuple[str, ...]) -> None:
    of_services: dict[str, Any] = {
        "bridge_mqtt_url": "x",
        "mqtt_ca_file": "/nowhere",
        "http_port": "x",
        "batch_size": "x",
    }
    said = run(tmp_path, *program, tls_cert_file="/nowhere", **of_services)
    assert said.returncode == 1, "the database was asked, and is not there"
    assert "FLEET_" not in said.stderr


@pytest.mark.parametrize(
    "program", [("bridge", "run"), ("bridge", "migrate"), ("bridge", "keep"), ("api", "run")], ids=" ".join
)
def test_url_that_the_database_client_refuses_is_named(tmp_path: Path, program: tuple[str, ...]) -> None:
    url = "postgresql://fleet:s3cret@127.0.0.1:1/fleet?"
    said = run(tmp_path, *program, database_url=url + "sslmode=wrong")
    assert said.returncode == 2
    assert said.stderr.startswith("FLEET_DATABASE_URL: sslmode must be one of disable, ")
    said = run(tmp_path, *program, database_url=url + "sslnegotiation=wrong")
    assert said.returncode in (1, 2)
    assert "FLEET_DATABASE_URL: `sslnegotiation`" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ("fleet:wrong@127.0.0.1:{port}/fleet", "the database 127.0.0.1:{port} cannot be read: InvalidPasswordError: "),
        ("fleet@127.0.0.1:{free}/fleet", "the database 127.0.0.1:{free} cannot be read: ConnectionRefusedError: "),
    ],
)
def test_verify_says_in_a_line_why_it_cannot_compare(
    tmp_path: Path, postgres: Postgres, login: str, reason: str
) -> None:
    ledger = LedgerWriter(tmp_path / "ledger", {"created": "2026-02-10T00:00:00Z"})
    ledger.device("meter", "M")
    ledger.sent(0, [Item(b'{"timestamp":"2026-02-10T00:00:00Z","meterId":"M"}', STORED)], 0)
    ledger.close(complete=True)
    ports = {"port": urlsplit(postgres.url("postgres", "fleet")).port, "free": free_port()}
    url = f"postgresql://{login.format(**ports)}"
    said = run(tmp_path, "simulator", "verify", "ledger", "--figures", "0", database_url=url)
    assert said.stdout.startswith(reason.format(**ports))
    assert (said.returncode, len(said.stdout.splitlines()), said.stderr) == (2, 1, "")


def test_wrong_setting_of_a_program_names_it(tmp_path: Path) -> None:
    said = run(tmp_path, "bridge", "run", batch_size="x", stall_s="x", bridge_name="a/b")
    assert said.returncode == 2
    assert [line.partition(":")[0] for line in sorted(said.stderr.splitlines()) if line[0] != "{"] == [
        "FLEET_BATCH_SIZE",
        "FLEET_BRIDGE_NAME",
        "FLEET_STALL_S",
    ]


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        (("run", "--vehicles=1"), "mqtt_url", "mqtt://localhost:abc"),
        (("run", "--vehicles=1"), "mqtt_url", "localhost"),
        (("run", "--vehicles=1"), "api_url", "localhost:8080"),
        (("replay", __file__), "mqtt_url", "mqtt://localhost:70000"),
        (("verify", "missing"), "database_url", "mysql://127.0.0.1/fleet"),
    ],
)
def test_wrong_value_of_an_option_names_the_option_and_the_variable(
    tmp_path: Path, command: tuple[str, ...], name: str, value: str
) -> None:
    said = run(tmp_path, "simulator", *command, others={f"FLEET_{name.upper()}": value})
    assert said.returncode == 2
    words = " ".join(said.stderr.replace("│", " ").split())
    assert f"--{name.replace('_', '-')}" in words
    assert f"FLEET_{name.upper()}" in words
    assert "must have the form" in words


@pytest.mark.parametrize("command", ["list", "replay"])
def test_unknown_reason_of_rejects_is_a_usage_error_that_lists_the_reasons(tmp_path: Path, command: str) -> None:
    said = run(tmp_path, "bridge", "rejected", command, "--reason=nope")
    assert said.returncode == 2
    for reason in ("nope", *get_args(Reason)):
        assert reason in said.stderr


def test_wrong_setting_does_not_hide_a_mistyped_variable(tmp_path: Path) -> None:
    said = run(tmp_path, "bridge", "migrate", database_url="x", http_prot="1")
    assert said.returncode == 2
    assert warnings(said) == [("unknown setting", "FLEET_HTTP_PROT", "FLEET_HTTP_PORT")]
    assert "FLEET_DATABASE_URL: must have the form" in said.stderr


@pytest.mark.parametrize("command", [("bridge", "rejected", "list"), ("api", "key", "list")], ids=" ".join)
def test_command_without_its_database_logs_why(tmp_path: Path, command: tuple[str, ...]) -> None:
    said = run(tmp_path, *command)
    assert said.returncode == 1
    (event,) = map(json.loads, said.stderr.splitlines())
    assert (event["level"], event["event"]) == ("error", "command failed")
    assert "Connect call failed" in event["reason"]


@pytest.mark.parametrize("command", ["settings", "contract"])
def test_command_for_a_checkout_is_hidden_and_says_what_it_needs(tmp_path: Path, command: str) -> None:
    assert command not in run(tmp_path, "local", "--help").stdout.split()
    said = run(tmp_path, "local", command)
    assert said.returncode == 1
    assert "needs a checkout of the repository" in said.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("program", [("bridge", "run"), ("bridge", "keep"), ("api", "run")], ids=" ".join)
def test_help_of_a_service_says_where_its_settings_are(tmp_path: Path, program: tuple[str, ...]) -> None:
    assert "docs/settings.md" in run(tmp_path, *program, "--help").stdout


def test_api_on_a_port_in_use_names_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = run(tmp_path, "api", "run", http_port=taken.getsockname()[1])
    assert said.returncode == 2
    assert "FLEET_HTTP_PORT: cannot listen on 127.0.0.1" in said.stderr
    assert "Traceback" not in said.stderr
