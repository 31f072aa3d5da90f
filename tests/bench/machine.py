"""The servers of one run, and the processes that are started and measured."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import asyncpg
import psutil

from bridge.settings.development import SuiteSettings
from bridge.store.migrate import migrate
from local.kafka import Kafka
from local.mosquitto import Mosquitto
from local.nats import Nats
from local.ports import free_port
from local.postgres import LOGINS, Postgres
from local.process import Process, confine
from tests.bench.load import Load, this_minute

Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

WINDOW = 20_000
"""Receive Maximum of both receivers: the bridge's default, and the same for mosquitto_sub."""


class Flood(NamedTuple):
    """What a load generator reports: when it began (monotonic clock), readings/s sent and its own CPU per reading."""

    began: float
    rate: float
    cpu_us: float


class KafkaTopic(NamedTuple):
    """A topic of a broker."""

    broker: Kafka
    name: str


Source: TypeAlias = Mosquitto | Nats | KafkaTopic
"""Where a bridge reads from."""


class Machine:
    """PostgreSQL with a migrated template; databases, brokers and bridges are created on request."""

    def __init__(self, directory: Path, quick: bool, rows: int, minutes: float) -> None:
        self.directory = directory
        self.quick = quick
        self.rows = rows
        """Rows of the large history."""
        self.minutes = minutes
        """How long a steady load lasts."""
        self.postgres = Postgres(directory / "postgres")
        self._numbers = itertools.count(1)
        self._ceiling: float | None = None
        self.long_history: str | None = None
        """Its URL, once `tests.bench.history` has made it."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Machine"]:
        """Start PostgreSQL; on exit stop it and delete its data."""
        self.postgres.start()
        try:
            self.postgres.ensure_database("template", "fleet")
            for login, groups in LOGINS.items():
                self.postgres.ensure_login(login, groups)
            await migrate(self.postgres.url("template", "fleet"))
            yield self
        finally:
            # An immediate shutdown, because a checkpoint of data that is deleted is useless.
            self.postgres.process.send(signal.SIGQUIT)
            self.postgres.stop()
            shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new database, after a checkpoint, so that earlier writes do not affect the measurement."""
        url = self.make_database()
        try:
            yield url
        finally:
            self.postgres.sql(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")

    def make_database(self) -> str:
        """The same, for the rest of the run."""
        name = f"bench{next(self._numbers)}"
        self.postgres.sql(f"CREATE DATABASE {name} TEMPLATE template OWNER fleet")
        self.postgres.sql("CHECKPOINT")
        return self.postgres.url(name, "fleet")

    def as_login(self, database_url: str, login: str) -> str:
        """The same database for one of the programs, with its privileges in production."""
        return self.postgres.url(urlsplit(database_url).path[1:], login)

    @contextlib.contextmanager
    def broker(self) -> Iterator[Mosquitto]:
        """A new broker without queue and sessions."""
        broker = Mosquitto(self.directory / f"broker{next(self._numbers)}" / "mosquitto")
        broker.start()
        try:
            yield broker
        finally:
            broker.process.kill()  # its queue is not needed any more
            shutil.rmtree(broker.directory.parent, ignore_errors=True)

    @contextlib.contextmanager
    def nats(self, nodes: int) -> Iterator[Nats]:
        """A new cluster of NATS without streams."""
        servers = Nats(self.directory / f"nats{next(self._numbers)}" / "nats", nodes)
        servers.start()
        try:
            yield servers
        finally:
            for node in servers.nodes:
                node.process.kill()  # its streams are not needed any more
            shutil.rmtree(servers.nodes[0].store.parents[2], ignore_errors=True)

    @contextlib.contextmanager
    def kafka(self) -> Iterator[Kafka | None]:
        """A new Kafka broker without topics; None where its jars are not installed."""
        jars = SuiteSettings.read(os.environ).test_kafka_jars
        if jars is None:
            yield None
            return
        broker = Kafka(self.directory / f"kafka{next(self._numbers)}" / "broker", jars.resolve())
        broker.start()
        try:
            yield broker
        finally:
            broker.process.kill()  # its topics are not needed any more

    @contextlib.contextmanager
    def bridge(
        self, database_url: str, source: Source, settings: Mapping[str, str] | None = None
    ) -> Iterator["RunningBridge"]:
        """A bridge process with the default settings, or these, subscribed."""
        with self.bridge_as(self.as_login(database_url, "bridge"), source, settings) as bridge:
            yield bridge

    @contextlib.contextmanager
    def bridge_as(
        self, login_url: str, source: Source, settings: Mapping[str, str] | None = None
    ) -> Iterator["RunningBridge"]:
        """The same with the URL of a login, which may be of other servers."""
        log = self.directory / f"bridge{next(self._numbers)}.log"
        bridge = RunningBridge(log, login_url, {**_reading_from(source), **(settings or {})})
        bridge.start()
        try:
            yield bridge
        finally:
            bridge.process.stop()

    async def ceiling(self) -> float:
        """Readings/s that the load generator sends to a broker without subscribers."""
        if self._ceiling is None:
            with self.broker() as broker:
                self._ceiling = (await run_flood(broker, Load(200_000, 10_000, this_minute()))).rate
        return self._ceiling


def _reading_from(source: Source) -> dict[str, str]:
    """The settings of a bridge that reads from it."""
    if isinstance(source, Nats):
        return {
            "FLEET_SOURCE": "jetstream",
            "FLEET_NATS_URL": source.bridge_url,
            "FLEET_NATS_REPLICAS": str(source.replicas),
            "FLEET_NATS_WINDOW": str(WINDOW),
        }
    if isinstance(source, KafkaTopic):
        return {
            "FLEET_SOURCE": "kafka",
            "FLEET_KAFKA_URL": source.broker.url,
            "FLEET_KAFKA_SASL": "PLAIN",
            "FLEET_KAFKA_TOPIC": source.name,
            "FLEET_KAFKA_GROUP": source.name,
        }
    return {"FLEET_BRIDGE_MQTT_URL": source.bridge_url, "FLEET_MQTT_RECEIVE_MAXIMUM": str(WINDOW)}


class RunningBridge:
    """`python -m bridge run`, watched from outside."""

    def __init__(self, log: Path, database_url: str, settings: Mapping[str, str]) -> None:
        self._port = free_port()
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLEET_")},
            "FLEET_DATABASE_URL": database_url,
            "FLEET_BRIDGE_HTTP_PORT": str(self._port),
            **settings,
        }
        self.process = Process("bridge", [sys.executable, "-m", "bridge", "run"], log, env=env)

    def start(self) -> None:
        self.process.start()
        self.process.wait_until(self._ready)

    def _ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def counted(self, *outcomes: str) -> int:
        """Readings committed so far with one of these outcomes."""
        with urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        wanted = {f'fleet_readings_total{{outcome="{outcome}"}}' for outcome in outcomes}
        return int(sum(float(line.split()[1]) for line in lines if line.split()[0] in wanted))

    def cpu_s(self) -> float:
        """User and system time since the start."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def memory_mb(self) -> float:
        """Resident memory now."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)

    def peak_memory_mb(self) -> float:
        """Its peak resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / 1e6


@contextlib.asynccontextmanager
async def worker(module: str, order: dict[str, object]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A load generator that is ready to begin; it ends with this process."""
    argv = [*confine(signal.SIGKILL, as_service=False), sys.executable, "-m", module, json.dumps(order)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, limit=1 << 20)
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{module} did not get ready")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def result_of(process: asyncio.subprocess.Process) -> dict[str, float]:
    """Start a ready load generator, and wait for its report."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the load generator failed; its error is above")
    return dict(json.loads(line))


def flood(
    broker: Mosquitto | Nats, load: Load, rate: float | None = None
) -> "contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]":
    """A flood of the load's messages that is ready to begin."""
    to = {"url": broker.mqtt_urls[0], "version": "3.1.1"} if isinstance(broker, Nats) else {"url": broker.url}
    order = {**load._asdict(), "now": load.now.isoformat(), "rate": rate, **to}
    return worker("tests.bench.flood", order)


async def run_flood(broker: Mosquitto | Nats, load: Load, rate: float | None = None) -> Flood:
    """Publish it all and wait until the broker has acknowledged it."""
    async with flood(broker, load, rate) as process:
        return Flood(**await result_of(process))


@contextlib.asynccontextmanager
async def mosquitto_sub(broker: Mosquitto, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Mosquitto's own client with a durable session, which ends when it has received `count` messages."""
    url = urlsplit(broker.bridge_url)
    common = ["mosquitto_sub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(url.port), "-u", str(url.username)]
    common += ["-P", unquote(url.password or ""), "-i", "bench-sub", "-c", "-x", "3600", "-q", "1"]
    common += ["-D", "connect", "receive-maximum", str(WINDOW)]
    common += ["-t", "fleet/vehicle/+/telemetry", "-t", "fleet/meter/+/telemetry"]
    subscribed = await asyncio.create_subprocess_exec(*confine(signal.SIGKILL, as_service=False), *common, "-E")
    if await subscribed.wait():
        raise RuntimeError("mosquitto_sub could not subscribe")
    argv: Sequence[str] = [*confine(signal.SIGKILL, as_service=False), *common, "-C", str(count)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def count_rows(database_url: str) -> int:
    """Rows of both histories."""
    db: Db = await asyncpg.connect(database_url)
    try:
        found: int = await db.fetchval(
            "SELECT (SELECT count(*) FROM vehicle_telemetry_history) + (SELECT count(*) FROM meter_telemetry_history)"
        )
    finally:
        await db.close()
    return found
