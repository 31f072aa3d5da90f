"""The real platform under test: PostgreSQL, Mosquitto, bridges, and a link before each server that can be hurt."""

import asyncio
import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from bridge.migrate import migrate
from local.mosquitto import Mosquitto
from local.ports import free_port, is_open
from local.postgres import Postgres
from local.process import Process, give_to_service
from tests.acceptance.chaos.link import Link
from tests.acceptance.chaos.workload import UNSTORABLE_SOC

ROOT = Path(__file__).parents[3]
_DISK = "384m"

# Small batches and short patience: many more transactions, acks and time-outs in a second than in production.
SETTINGS = {
    "FLEET_BRIDGE_NAME": "chaos",
    "FLEET_BATCH_SIZE": "200",
    "FLEET_BATCH_AGE_MS": "20",
    "FLEET_CAPACITY": "2000",
    "FLEET_RECEIVE_MAXIMUM": "1000",
    "FLEET_KEEP_ALIVE_S": "2",
    "FLEET_STALL_S": "3",
    "FLEET_COMMAND_TIMEOUT_S": "2",
    "FLEET_HTTP_TIMEOUT_S": "3",
    "FLEET_LOG_FORMAT": "json",
}

# What only the database refuses: the wire takes this value.
_POISON = f"""
CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.soc = {UNSTORABLE_SOC} THEN PERFORM 1 / 0; END IF; RETURN NEW; END $$;
CREATE TRIGGER poison BEFORE INSERT ON vehicle_telemetry_history FOR EACH ROW EXECUTE FUNCTION refuse_poison()
"""


class Stuck(Exception):
    """Something that had to happen has not happened in time."""


def until(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Wait for a condition. Raises `Stuck`, which says what did not happen."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Stuck(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.01)


class Broker(Mosquitto):
    """The project's configuration, with figures every second and a queue that can be made short."""

    most_queued = 50_000_000

    def _adapted(self, conf: str) -> str:
        conf = super()._adapted(conf).replace("sys_interval 10", "sys_interval 1")
        return conf.replace("max_queued_messages 50000000", f"max_queued_messages {self.most_queued}")

    def limit_queue(self, most: int) -> None:
        """Drop what exceeds `most` messages from the next start on."""
        self.most_queued = most


def _command(program: str, wrap: tuple[str, int] | None) -> list[object]:
    crashing: list[object] = [] if wrap is None else ["tests.acceptance.chaos.crashing_bridge", *wrap]
    return [sys.executable, "-m", *crashing, program, "run"]


class Bridge:
    """A bridge process, plain or wrapped by `crashing_bridge`."""

    def __init__(self, name: str, logs: Path, env: dict[str, str], wrap: tuple[str, int] | None) -> None:
        self.port = free_port()
        log, env = logs / f"bridge-{self.port}.log", {**env, "FLEET_BRIDGE_HTTP_PORT": str(self.port)}
        self.process = Process(name, _command("bridge", wrap), log, env=env)
        self.process.start()

    def ready(self) -> bool:
        return self._get("/readyz")[0] == 200

    def metric(self, name: str) -> float:
        """A sample without labels; 0 when nobody answers."""
        for line in self._get("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""
        except OSError:
            return 0, ""


class Publisher:
    """The publisher's process and its answers."""

    def __init__(self, url: str, api_url: str, api_key: str, ledger: Path, seed: int) -> None:
        module = ["-m", "tests.acceptance.chaos.publisher"]
        options = ["--url", url, "--api", api_url, "--ledger", str(ledger), "--seed", str(seed)]
        self._process = subprocess.Popen(
            [sys.executable, *module, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "FLEET_API_KEY": api_key},
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._answers.get(timeout=20) == "ready"

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answered(self, answer: str) -> bool:
        """Whether this answer has come. Raises `Stuck` when the publisher is gone."""
        while not self._answers.empty():
            if self._answers.get() == answer:
                return True
        if self._process.poll() is not None:
            raise Stuck(f"the publisher ended with {self._process.returncode}")
        return False

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line.strip())


class Stack:
    """Everything, started; `close` ends it. All of it lies below `directory`."""

    def __init__(self, directory: Path, seed: int, first: tuple[str, int] | None = None) -> None:
        self.directory = directory
        self.first = first
        self.api_port = free_port()
        self.ledger = directory / "ledger.jsonl"
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
        self.disk = _small_disk(self._opened)
        self.postgres = Postgres(
            self.directory / "postgres", settings={"shared_buffers": "64MB", "max_wal_size": "1GB"}
        )
        self._opened.callback(self.postgres.stop)
        self.postgres.start()
        self._make_database()
        self.broker = Broker(self.directory / "mosquitto")
        self._opened.callback(self.broker.stop)
        self.broker.start()
        self.database_link = self._link(self.postgres.port)
        self.broker_link = self._link(self.broker.bridge_port)
        self.device_link = self._link(self.broker.port)
        self._start_programs()
        url = _through(self.broker.url, self.device_link)
        self.publisher = Publisher(url, f"{self._api_url}/v1/ingest", self.api_key, self.ledger, seed)
        self._opened.callback(self.publisher.close)

    def _start_programs(self) -> None:
        self._opened.callback(self.kill_bridge)
        self.start_bridge(self.first)
        until(self.bridge.ready, "the first bridge is ready")
        create = [sys.executable, "-m", "api", "key", "create", "chaos"]
        made = subprocess.run(create, env=self._env, capture_output=True, text=True, check=True)
        self.api_key = made.stdout.strip()
        self.start_api()
        self._opened.callback(self.kill_api)
        until(lambda: is_open(self.api_port), "the API listens")

    def _link(self, port: int) -> Link:
        link = Link(port)
        self._opened.callback(link.close)
        return link

    def close(self) -> None:
        """End everything, in the opposite order."""
        self._opened.close()

    @property
    def bridge(self) -> Bridge:
        """The bridge that was started last."""
        return self.bridges[-1]

    @property
    def database_url(self) -> str:
        """For the oracle: past the link, as the superuser."""
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
        self.api = Process("API", _command("api", wrap), self.directory / "logs" / "api.log", env=self._env)
        self.api.start()
        return self.api

    def kill_api(self) -> None:
        self.api.kill()
        self.kills += 1

    @property
    def _api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def _env(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLEET_")},
            **SETTINGS,
            "PYTHONPATH": str(ROOT),
            "FLEET_DATABASE_URL": _through(self.postgres.url("chaos", "fleet"), self.database_link),
            "FLEET_BRIDGE_MQTT_URL": _through(self.broker.bridge_url, self.broker_link),
            "FLEET_HTTP_PORT": str(self.api_port),
        }

    def kill_bridge(self) -> None:
        """kill -9 of every bridge."""
        for bridge in self.bridges:
            bridge.process.kill()
            self.kills += 1
        self.bridges.clear()

    def supervise(self) -> None:
        """What systemd does: a bridge or an API that has ended is started again."""
        if not self.api.running:
            self.start_api()
        for bridge in self.bridges:
            with contextlib.suppress(psutil.Error):
                self.most_memory = max(self.most_memory, psutil.Process(bridge.process.pid).memory_info().rss)
        ended = [bridge for bridge in self.bridges if not bridge.process.running]
        self.bridges = [bridge for bridge in self.bridges if bridge not in ended]
        self.kills += len(ended)
        if not self.bridges and self.supervised:
            self.start_bridge()

    def start_postgres(self) -> None:
        """Start the server; after a kill -9 its orphans have to go first."""

        def started() -> bool:
            try:
                self.postgres.start()
            except RuntimeError:
                return False
            return True

        until(started, "PostgreSQL starts again", 60)

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


def _small_disk(opened: contextlib.ExitStack) -> Path | None:
    """A disk of its own for the database, so that it can be filled; None when we may not mount one."""
    at = Path(tempfile.mkdtemp(prefix="chaos-disk-"))
    opened.callback(at.rmdir)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(at)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        return None
    opened.callback(subprocess.run, ["umount", str(at)], check=True)
    (at / "data").mkdir()
    at.chmod(0o755)
    give_to_service(at / "data")
    return at


def _through(url: str, link: Link) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{link.port}").geturl()
