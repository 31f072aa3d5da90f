"""The embedded servers keep their data and do not outlive the process that started them."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from local.mosquitto import Mosquitto
from local.ports import is_open
from local.postgres import Postgres
from tests.until import wait_until

_START_AND_HANG = """
import sys, time
from pathlib import Path
from local.mosquitto import Mosquitto
from local.postgres import Postgres
postgres, broker = Postgres(Path(sys.argv[1]) / "postgres"), Mosquitto(Path(sys.argv[1]) / "mosquitto")
postgres.start(); broker.start()
print(postgres.process.pid, broker.process.pid, flush=True)
time.sleep(600)
"""


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_servers_die_with_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _START_AND_HANG, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: all(map(_gone, pids)), "no server outlives its parent")


def test_postgres_keeps_rows_over_a_restart(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres")
    server.start()
    server.sql("CREATE TABLE kept AS SELECT 42 AS n")
    server.process.kill()
    again = Postgres(tmp_path / "postgres", port=server.port)
    again.process.start()
    again.process.wait_until(again.ready)
    try:
        assert again.sql("SELECT n FROM kept") == "42"
    finally:
        again.stop()


def test_postgres_refuses_a_wrong_password(postgres: Postgres) -> None:
    user, _, address = postgres.url().removeprefix("postgresql://").partition(":")
    wrong = f"postgresql://{user}:wrong@{address.partition('@')[2]}"
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(asyncpg.connect(wrong))


def test_broker_keeps_its_accounts_over_a_restart(tmp_path: Path) -> None:
    first = Mosquitto(tmp_path / "mosquitto")
    first.start()
    url = first.url
    first.stop()
    second = Mosquitto(tmp_path / "mosquitto", port=first.port)
    second.start()
    try:
        assert second.url == url
        assert is_open(second.port)
    finally:
        second.stop()
