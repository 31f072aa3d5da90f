"""The servers with which the API is compared answer, on the port that they are given."""

from pathlib import Path

import httpx
import pytest

from bridge.formats.contract_json import encode
from tests.bench.http_servers import bare
from tests.bench.machine import Machine
from tests.readings import vehicle

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("kind", ["route", "canned"])
def test_reference_answers(kind: str, tmp_path: Path) -> None:
    with bare(Machine(tmp_path, quick=True, rows=0, minutes=0), kind) as (port, _):
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/ingest", content=encode(vehicle()), headers=JSON)
        assert answer.status_code == 201, answer.text
        assert answer.json()["stored"] == 1
