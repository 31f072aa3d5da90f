"""A new format, and a new source, is one new file and one line: added to a copy of the project, which then runs."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.formats.contract_json import encode
from bridge.reading import format_timestamp
from local.mosquitto import Mosquitto
from local.ports import free_port
from local.process import Process
from tests.bridges import Health, environment
from tests.devices import device
from tests.integration.api.server import Api
from tests.readings import now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ROOT = Path(__file__).resolve().parents[2]

PAIRS_FORMAT = '''
"""A line per reading, of name=value pairs; over MQTT also on the topics pairs/ID."""

from bridge.delivery import Item
from bridge.formats.element import Origin, decode_element, origin_of
from bridge.formats.port import AcceptedTimes, Format


def decode(payload: bytes, topic: str | None, times: AcceptedTimes, most: int) -> list[Item]:
    origin = origin_of("pairs", topic) or Origin("pairs", topic)
    lines = payload.splitlines()
    if len(lines) > most:
        return [origin.too_many(payload, most)]
    return [decode_element(origin, _fields(line), times, line) for line in lines] or [origin.empty(payload)]


def _fields(line: bytes) -> dict[str, object]:
    pairs = dict(pair.split("=", 1) for pair in line.decode().split())
    return {name: float(value) if name in ("soc", "voltage") else value for name, value in pairs.items()}


FORMAT = Format("pairs", decode, ("text/x-pairs",), "A line of name=value pairs per reading.", ("pairs/+",))
'''
SPOOL_SOURCE = '''
"""Files of a directory, a message each; a file is deleted when it has been stored."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

from bridge.delivery import Settlement, delivery
from bridge.errors import StoreUnavailable
from bridge.formats import FORMATS, decode
from bridge.settings.groups import WindowSettings
from bridge.sources.port import Intake, SourceKind


class Spool:
    def __init__(self, settings, intake: Intake) -> None:
        self._directory, self._window, self._intake = Path(os.environ["SPOOL"]), settings.accepted_window, intake
        self._outstanding: set[Path] = set()
        self._stopping = False
        self.not_ready = None

    async def run(self) -> None:
        while not self._stopping:
            await self._intake.room()
            for path in sorted(set(self._directory.glob("*.json")) - self._outstanding):
                self._offer(path)
            await asyncio.sleep(0.01)

    def _offer(self, path: Path) -> None:
        def settle(settlement: Settlement) -> None:
            if not isinstance(settlement, StoreUnavailable):
                path.unlink()
            self._outstanding.discard(path)

        self._outstanding.add(path)
        payload = path.read_bytes()
        items = decode(FORMATS[0], payload, None, self._window.at(datetime.now(UTC)), 1_000)
        self._intake.offer(delivery(items, settle, len(payload)))

    def stop_reading(self) -> None:
        self._stopping = True

    async def close(self) -> None: ...

    def abort(self, reason: str) -> None:
        self._stopping = True


SOURCE = SourceKind(WindowSettings, lambda settings, registry: lambda intake: Spool(settings, intake))
'''


class Copy:
    """A copy of the project's packages with one file and one line more."""

    def __init__(self, root: Path, folder: str, module: str, text: str, line: str) -> None:
        self.root = root
        for package in ("bridge", "api", "mosquitto"):
            shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
        (root / "bridge" / folder / f"{module}.py").write_text(text)
        registry = root / "bridge" / folder / "__init__.py"
        before, opening, after = registry.read_text().partition(f"{folder.upper()}: ")
        head, bracket, rest = after.partition("\n")
        assert opening
        assert head[-1] in "({"
        registry.write_text(f"{before}from bridge.{folder} import {module}\n{opening}{head}\n    {line}{bracket}{rest}")

    def environment(self, **settings: object) -> dict[str, str]:
        return {**environment(**settings), "PYTHONPATH": str(self.root), "PYTHONSAFEPATH": "1"}

    def run(self, program: str, log: Path, **settings: object) -> Process:
        process = Process(program, [sys.executable, "-m", program, "run"], log, env=self.environment(**settings))
        process.start()
        return process

    def printed(self, *command: str, **settings: object) -> str:
        """What a command prints: a module of the project with its arguments, or `-c` and code."""
        argv = [sys.executable, *(() if command[0] == "-c" else ("-m",)), *command]
        env = self.environment(**settings)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def with_pairs(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "project", "formats", "pairs", PAIRS_FORMAT, "pairs.FORMAT,")


@pytest.fixture
def with_spool(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "project", "sources", "spool", SPOOL_SOURCE, '"spool": spool.SOURCE,')


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """To be stopped in the end."""
    running: list[Process] = []
    yield running
    for process in running:
        process.stop()


def line(device: str, minutes_ago: int, soc: str = "70") -> bytes:
    at = format_timestamp(now_minute() - timedelta(minutes=minutes_ago))
    return f"vehicleId={device} timestamp={at} soc={soc}".encode()


async def history(db: Db) -> list[tuple[str, float]]:
    rows = await db.fetch("SELECT vehicle_id, soc FROM vehicle_telemetry_history ORDER BY vehicle_id, ts")
    return [(row[0], row[1]) for row in rows]


async def test_new_format_is_decoded_from_mqtt_and_http_and_replayed(
    with_pairs: Copy, broker: Mosquitto, database_url: str, db: Db, tmp_path: Path, processes: list[Process]
) -> None:
    health = Health(free_port())
    fields = {"bridge_mqtt_url": broker.bridge_url, "database_url": database_url, "bridge_http_port": health.port}
    processes.append(with_pairs.run("bridge", tmp_path / "bridge.log", **fields))
    await until(health.ready)

    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = "text/x-pairs"
    async with device(broker.url) as client:
        payload = line("EV_1", 2) + b"\n" + line("EV_2", 2)
        await client.publish("fleet/vehicle/EV_1/telemetry", payload, 1, properties=properties)
    await until(lambda: db.fetchval("SELECT count(*) FROM rejected_message"))
    rejected = await db.fetchrow("SELECT id, reason, format, payload FROM rejected_message")
    assert rejected is not None
    assert (rejected["reason"], rejected["format"]) == ("device_mismatch", "pairs")
    assert rejected["payload"] == line("EV_2", 2)

    port = free_port()
    api = {"database_url": database_url, "http_port": port}
    key = with_pairs.printed("api", "key", "create", "sender", "--scope", "ingest", database_url=database_url)
    processes.append(with_pairs.run("api", tmp_path / "api.log", **api))
    running = Api(f"http://127.0.0.1:{port}", processes[-1], {})
    await asyncio.to_thread(running.wait_until, "/readyz")
    async with running.client(key) as client:
        body = line("EV_3", 2) + b"\n" + line("EV_3", 1, soc="170")
        answer = await client.post("/v1/ingest", content=body, headers={"Content-Type": "text/x-pairs"})
        assert (answer.status_code, answer.json()["stored"], len(answer.json()["rejected"])) == (207, 1, 1)
        document = (await client.get("/openapi.json")).json()
    assert "text/x-pairs" in document["paths"]["/v1/ingest"]["post"]["requestBody"]["content"]
    assert await history(db) == [("EV_1", 70.0), ("EV_3", 70.0)]

    await db.execute("UPDATE rejected_message SET topic = 'pairs/EV_2' WHERE id = $1", rejected["id"])
    replayed = with_pairs.printed("bridge", "rejected", "replay", str(rejected["id"]), database_url=database_url)
    assert replayed == f"{rejected['id']} stored"
    assert ("EV_2", 70.0) in await history(db)


def test_new_format_may_have_topics_of_its_own(with_pairs: Copy) -> None:
    code = "from bridge.formats import of_message as f; print(f('pairs/EV_1', None).name, f('pairs/a/b', None).name)"
    assert with_pairs.printed("-c", code) == "pairs json"
    rules = with_pairs.printed("-c", "from mosquitto.broker import access_list; print(access_list())").splitlines()
    assert {"topic read pairs/+", "topic write pairs/+"} <= set(rules)


async def test_new_source_delivers_and_settles_after_the_commit(
    with_spool: Copy,
    database_url: str,
    db: Db,
    tmp_path: Path,
    processes: list[Process],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health, spool = Health(free_port()), tmp_path / "spool"
    spool.mkdir()
    fields = {"source": "spool", "database_url": database_url, "bridge_http_port": health.port}
    monkeypatch.setenv("SPOOL", str(spool))
    processes.append(with_spool.run("bridge", tmp_path / "bridge.log", **fields))
    await until(health.ready)
    for n in range(3):
        (spool / f"{n}.part").write_bytes(encode(vehicle(f"EV_{n}")) if n < 2 else b"no reading")
        (spool / f"{n}.part").rename(spool / f"{n}.json")
    await until(lambda: not list(spool.iterdir()))
    assert [device for device, _ in await history(db)] == ["EV_0", "EV_1"]
    assert await db.fetchval("SELECT source || ' ' || reason FROM rejected_message") == "spool not_json"
