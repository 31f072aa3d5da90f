"""The real platform under test: PostgreSQL, Mosquitto, bridges, and a link before each server that can be hurt."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import psutil

from bridge.store.migrate import migrate
from local.ports import free_port, is_open
from local.postgres import Postgres
from local.process import Process
from simulator.endpoints import Api
from tests.acceptance.chaos.disk import small_disk
from tests.acceptance.chaos.link import Link
from tests.acceptance.chaos.processes import ROOT, Bridge, Broker, Keeper, Publisher, command
from tests.acceptance.chaos.workload import UNSTORABLE_SOC
from tests.until import wait_until

# Small batches and short patience: many more transactions, acks and time-outs in a second than in production.
SETTINGS = {
    "FLEET_BRIDGE_NAME": "chaos",
    "FLEET_BATCH_SIZE": "200",
    "FLEET_BATCH_WAIT_MS": "20",
    "FLEET_BUFFER_CAPACITY": "2000",
    "FLEET_MQTT_RECEIVE_MAXIMUM": "1000",
    "FLEET_MQTT_KEEP_ALIVE_S": "2",
    "FLEET_STALL_TIMEOUT_S": "3",
    "FLEET_WRITE_TIMEOUT_S": "1",
    "FLEET_COMMIT_TIMEOUT_S": "2",
    "FLEET_KEEPER_TIMEOUT_S": "1",
    "FLEET_LOG_FORMAT": "json",
}

START_S = 120.0
"""A machine with much other work takes more than half a minute for a program."""

POSTGRES_SETTINGS = {"shared_buffers": "64MB", "max_wal_size": "1GB"}

# What only the database refuses: the wire takes this value.
_POISON = f"""
CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.soc = {UNSTORABLE_SOC} THEN PERFORM 1 / 0; END IF; RETURN NEW; END $$;
CREATE TRIGGER poison BEFORE INSERT ON vehicle_telemetry_history FOR EACH ROW EXECUTE FUNCTION refuse_poison()
"""


class Stack:
    """Everything, started; `close` ends it. All of it lies below `directory`."""

    version: ClassVar[str] = "5"
    """Of MQTT."""
    without: ClassVar[frozenset[str]] = frozenset()
    """Faults, by name or by place, that cannot strike here."""
    gives_receipts: ClassVar[bool] = True
    """Devices that ask for a receipt get one."""

    def __init__(self, directory: Path, seed: int, first: tuple[str, int] | None = None) -> None:
        self.directory = directory
        self.first = first
        self.api_port = free_port()
        self.ledger = directory / "ledger"
        self.kills = 0
        self.most_memory = 0
        """The largest resident set of any bridge, in bytes."""
        self.supervised = True
        self.excused_until = 0.0
        """What the broker acknowledged before this moment it may have forgotten: we made it."""
        self.bridges: list[Bridge] = []
        self._opened = contextlib.ExitStack()
        try:
            self._start(seed)
        except BaseException:
            self.close()
            raise

    def _start(self, seed: int) -> None:
        self.disk: Path | None = None
        self._start_database()
        url = self._start_broker()
        self._start_programs()
        receipts = "yes" if self.gives_receipts else "no"
        options = ["--ledger", self.ledger, "--seed", seed, "--mqtt", self.version, "--receipts", receipts]
        self.publisher = Publisher(url, f"{self._api_url}/v1/ingest", self.api_key, options)
        self._opened.callback(self.publisher.close)

    def _start_database(self) -> None:
        """Start what the programs write to, with an empty database."""
        self.disk = small_disk(self._opened)
        self.postgres = Postgres(self.directory / "postgres", settings=POSTGRES_SETTINGS)
        self._opened.callback(self.postgres.stop)
        self.postgres.start()
        self._make_database()
        self.database_link = self._link(self.postgres.port)

    def _start_broker(self) -> str:
        """Start what the devices publish to; its URL for them."""
        self.broker = Broker(self.directory / "mosquitto")
        self._opened.callback(self.broker.stop)
        self.broker.start()
        self.broker_link = self._link(self.broker.bridge_port)
        self.device_link = self._link(self.broker.port)
        return through(self.broker.url, self.device_link)

    @property
    def _source(self) -> dict[str, str]:
        """The settings that say where readings come from."""
        return {"FLEET_BRIDGE_MQTT_URL": through(self.broker.bridge_url, self.broker_link)}

    @property
    def _database(self) -> str:
        """The database's URL for the programs."""
        return through(self.postgres.url("chaos", "fleet"), self.database_link)

    def _start_programs(self) -> None:
        self._opened.callback(self.kill_bridge)
        self.start_bridge(self.first)
        wait_until(self.bridge.ready, "the first bridge is ready", START_S)
        self.keeper = Keeper(self.directory / "logs", self._env)
        self._opened.callback(self.kill_keeper)
        wait_until(self.keeper.ready, "the keeper is ready", START_S)
        create = [sys.executable, "-m", "api", "key", "create", "chaos"]
        made = subprocess.run(create, env=self._env, capture_output=True, text=True, check=True)
        self.api_key = made.stdout.strip()
        self.start_api()
        self._opened.callback(self.kill_api)
        self.ensure_api()

    def _link(self, port: int) -> Link:
        link = Link(port)
        self._opened.callback(link.close)
        return link

    def close(self) -> None:
        """End everything, in the opposite order."""
        self._opened.close()

    def end_programs(self) -> None:
        """Publisher, API, keeper and bridges go, so that the database stands still."""
        self.supervised = False
        self.publisher.close()
        self.kill_api()
        self.kill_keeper()
        self.kill_bridge()

    @property
    def bridge(self) -> Bridge:
        """The bridge that was started last."""
        return self.bridges[-1]

    @property
    def database_url(self) -> str:
        """For the verifier: past the link, as the superuser."""
        return self.postgres.url("chaos")

    def sql(self, statement: str) -> str:
        """Run SQL as the superuser, past the link."""
        return self.postgres.sql(statement, "chaos")

    def start_bridge(self, wrap: tuple[str, int] | None = None) -> Bridge:
        """Start one more bridge; `wrap` names a crash point or a planted bug, and its n."""
        self.bridges.append(Bridge(f"bridge {len(self.bridges)}", self.directory / "logs", self._env, wrap))
        return self.bridge

    def start_api(self, wrap: tuple[str, int] | None = None) -> Process:
        """Start the API, wrapped like a bridge."""
        self.api = Process("API", command("api", wrap), self.directory / "logs" / "api.log", env=self._env)
        self.api.start()
        return self.api

    def kill_api(self) -> None:
        self.api.kill()
        self.kills += 1

    def kill_keeper(self) -> None:
        self.keeper.process.kill()
        self.kills += 1

    @property
    def api_client(self) -> Api:
        """The API, for the verifier."""
        return Api(self._api_url, self.api_key)

    def ensure_api(self) -> None:
        """Start the API unless it runs, and wait until it listens."""
        if not self.api.running:
            self.start_api()
        wait_until(lambda: is_open(self.api_port), "the API listens", START_S)

    @property
    def _api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def _env(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLEET_")},
            **SETTINGS,
            "PYTHONPATH": str(ROOT),
            "FLEET_DATABASE_URL": self._database,
            **self._source,
            "FLEET_HTTP_PORT": str(self.api_port),
        }

    def kill_bridge(self) -> None:
        """kill -9 of every bridge."""
        for bridge in self.bridges:
            bridge.process.kill()
            self.kills += 1
        self.bridges.clear()

    def supervise(self) -> None:
        """What systemd does: a bridge, an API or a keeper that has ended is started again."""
        if not self.api.running:
            self.start_api()
        if not self.keeper.process.running:
            self.keeper.process.start()
        for bridge in self.bridges:
            with contextlib.suppress(psutil.Error):
                self.most_memory = max(self.most_memory, psutil.Process(bridge.process.pid).memory_info().rss)
        ended = [bridge for bridge in self.bridges if not bridge.process.running]
        self.bridges = [bridge for bridge in self.bridges if bridge not in ended]
        self.kills += sum(bridge.process.exit_code == -signal.SIGKILL for bridge in ended)
        if not self.bridges and self.supervised:
            self.start_bridge()

    @contextlib.contextmanager
    def locked(self, table: str, mode: str) -> Iterator[None]:
        """A session asks for a lock of the table and keeps it until the end of the block."""

        def lock() -> None:
            with contextlib.suppress(RuntimeError):  # it is ended from outside
                self.sql(f"LOCK TABLE {table} IN {mode} MODE; SELECT pg_sleep(3600)")

        holding = threading.Thread(target=lock)
        holding.start()
        try:
            yield
        finally:
            self.postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE %'")
            holding.join()

    def drained(self, _cycle: int, /) -> bool:
        """Whether everything that the cycle's devices have published is judged, when the last receipt has come."""
        return True

    def forgive_broker(self) -> None:
        """From here on the broker has no excuse any more."""
        self.excused_until = time.monotonic()

    def _make_database(self) -> None:
        self.postgres.ensure_database("chaos", "fleet")
        if self.disk is not None:
            self.postgres.sql(f"CREATE TABLESPACE small LOCATION '{self.disk}/data'")
            self.postgres.sql("ALTER DATABASE chaos SET TABLESPACE small")
        asyncio.run(migrate(self.postgres.url("chaos", "fleet")))
        self.sql(_POISON)


def start_again(server: Postgres) -> None:
    """Start a server; after a kill -9 its orphans have to go first."""

    def started() -> bool:
        try:
            server.start()
        except RuntimeError:
            return False
        return True

    wait_until(started, "PostgreSQL starts again", 60)


def through(url: str, link: Link) -> str:
    """The URL with the link's port."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{link.port}").geturl()
