"""The HTTP clients that come with a language or a system, as their documentation uses them, against the real API.

A language that is not installed is skipped.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.formats.contract_json import encode, encode_many
from tests.integration.api.server import Api
from tests.readings import minutes, vehicle

pytestmark = pytest.mark.anyio

_HERE = Path(__file__).parent / "stock_clients"
_COMMANDS = {
    "curl": (["sh"], "client.sh"),
    "go": (["go", "run"], "client.go"),
    "java": (["java"], "Client.java"),
    "node": (["node"], "client.mjs"),
    "python": ([sys.executable], "client.py"),
}


@pytest.mark.parametrize("name", _COMMANDS)
async def test_stock_client_stores_every_body_once(name: str, api: Api, token: str, tmp_path: Path) -> None:
    command, source = _COMMANDS[name]
    program = shutil.which(name) or (sys.executable if name == "python" else None)
    if program is None:
        pytest.skip(f"{name} is not installed")
    few, many = tmp_path / "few.json", tmp_path / "many.json"
    few.write_bytes(encode(vehicle("EV_few")))
    many.write_bytes(encode_many(minutes("EV_many", 1_000)))
    ran = await asyncio.to_thread(
        subprocess.run,
        [*command, str(_HERE / source), f"{api.url}/v1/ingest", token, str(few), str(many)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = [line.split(" ", 1) for line in ran.stdout.splitlines()]
    receipts = [json.loads(receipt) for _, receipt in answers]
    assert {status for status, _ in answers} == {"201"}
    of_few, of_many = receipts[: len(receipts) // 2], receipts[len(receipts) // 2 :]
    assert [(r["stored"], r["duplicates"]) for r in of_few] == [(1, 0)] + [(0, 1)] * (len(of_few) - 1)
    assert [(r["stored"], r["duplicates"]) for r in of_many] == [(1_000, 0)] + [(0, 1_000)] * (len(of_many) - 1)
    assert len(of_few) >= 2
