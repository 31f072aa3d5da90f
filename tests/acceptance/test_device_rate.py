"""The limits of mosquitto/device-rate.nft in the kernel: a flood is held, and a backlog comes through."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_RATE_KB_PER_S, _BURST_KB = 100, 500  # of a connection
_BACKLOG_KB = 1_000
_MOST_SENT = 200_000
"""Messages of a limited flood of 4 s, most of them in the buffers of the kernel; without limits 300,000 to 600,000."""
_WAIT_S = 5
"""The bar on a machine that runs other tests."""


def _is_possible() -> bool:
    return not subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode


pytestmark = pytest.mark.skipif(not _is_possible(), reason="this user cannot make a network of its own")


def _run(*module: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", *map(str, module)]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("attack", ["flood-qos-1", "reject-flood-qos-1"])
def test_others_are_served_beside_a_flood_of_a_limited_device(attack: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ("--only", attack, "--seconds", 4, "--wait", _WAIT_S, "--json", figures)
    ended = _run("tests.acceptance.attacks", "--device-rate", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (found,) = json.loads(figures.read_text())
    assert 0 < found["done"]["sent"] < _MOST_SENT


def test_backlog_of_a_limited_device_arrives_at_the_rate_of_its_connection(tmp_path: Path) -> None:
    ended = _run("tests.acceptance.backlog", tmp_path, _BACKLOG_KB)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["acknowledged"] == _BACKLOG_KB // 50
    assert found["dropped"] > 0
    assert found["forged"] == 0
    at_the_rate_s = (_BACKLOG_KB - _BURST_KB) / _RATE_KB_PER_S
    assert found["seconds"] > 0.6 * at_the_rate_s
    assert found["seconds"] < 10 * at_the_rate_s
