"""Every example of docs/devices.md runs unchanged, and its reading is stored as the receipt says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from local.platform import Platform

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = sorted(path for path in (DOCS / "examples").iterdir() if path.suffix in (".py", ".sh"))
COMMANDS = {".py": sys.executable, ".sh": "sh"}
SEED = {
    "vehicle": ("EV_002", {"soc": 72.5, "kwhDeliveredDc": 4.25, "batteryTemp": 38.6}),
    "meter": ("METER_001", {"kwhConsumedAc": 5.10, "voltage": 231.5}),
}


def history(client: httpx.Client, kind: str) -> list[dict[str, object]]:
    answer = client.get(f"/v1/history/{kind}s/{SEED[kind][0]}")
    return list(answer.json()["items"]) if answer.status_code == 200 else []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_stores_its_reading_and_says_so(example: Path, platform: Platform, client: httpx.Client) -> None:
    kind = "vehicle" if "EV_002" in example.read_text() else "meter"
    before = history(client, kind)
    environment = {**os.environ, **platform.addresses, "PYTHONWARNINGS": "error"}
    command = [COMMANDS[example.suffix], str(example)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {"stored": 1, "duplicates": 0, "rejected": []}
    stored = [row for row in history(client, kind) if row not in before]
    assert len(stored) == 1
    assert SEED[kind][1].items() <= stored[0].items()


def test_page_shows_the_files_as_they_are() -> None:
    blocks = re.findall(r"```\w+\n(.*?)```", (DOCS / "devices.md").read_text(), re.DOTALL)
    shown = [block for block in blocks if "FLEET_" in block and "reading" in block]
    assert sorted(shown) == sorted(path.read_text() for path in EXAMPLES)
