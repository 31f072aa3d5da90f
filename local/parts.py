"""The parts of a platform: servers and programs, started in the order of their dependencies, stopped in reverse order.

`Parts` has all but what the devices publish to: `platform` adds the broker, `streams` a NATS cluster. The bridge is
ready before devices are told the addresses, because a broker without a subscriber acknowledges a message and discards
it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from bridge.private_file import read_private, write_private
from local.ports import Ports
from local.postgres import LOGINS, Postgres
from local.process import Process
from local.replica import OF_PRIMARY, Replica
from local.service import Service, program, run_once

_OWNER = "fleet"


class Part(Protocol):
    """A server that is ready when `start` returns and gone when `stop` returns."""

    @property
    def process(self) -> Process: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Parts(ABC):
    """PostgreSQL with replicas, bridge, keeper and API in one private directory, on loopback, with their logins.

    Each part can be stopped, killed (`part.process.kill()`) and restarted separately. Use it as a context manager:
    all started parts are stopped on exit.
    """

    def __init__(self, directory: Path, ports: Ports, sim_vehicles: int, replicas: int = 0) -> None:
        self.directory = directory.resolve()
        self.database = "fleet"
        self._logs = self.directory / "logs"
        self.ports = ports
        self._sim_vehicles = sim_vehicles
        kept = OF_PRIMARY if replicas else {}
        self.postgres = Postgres(self.directory / "postgres", port=self.ports.postgres, settings=kept)
        self.replicas = [Replica(self.directory / f"replica-{n + 1}", self.postgres) for n in range(replicas)]
        self.bridge = self._service("bridge", ["bridge", "run"], self.ports.bridge_http, self._bridge_settings)
        self.keeper = self._service("keeper", ["bridge", "keep"], self.ports.keeper_http, self._keeper_settings)
        self.api = self._service("api", ["api", "run"], self.ports.http, self._api_settings)
        self.started: list[Part] = []
        """The started parts, in the order of their start."""

    @property
    @abstractmethod
    def brokers(self) -> Sequence[Part]:
        """The servers that devices publish to."""

    @property
    @abstractmethod
    def accepts_devices(self) -> bool:
        """Whether devices can connect now."""

    @property
    @abstractmethod
    def _mqtt_addresses(self) -> dict[str, str]:
        """The addresses for devices and for the simulator."""

    @property
    @abstractmethod
    def _source(self) -> dict[str, str]:
        """The settings of the bridge's source."""

    @property
    def _alarm_broker(self) -> dict[str, str]:
        """The settings with which the keeper publishes alarms by MQTT."""
        return {}

    def _start_brokers(self) -> None:
        for broker in self.brokers:
            self._start(broker)

    def start(self) -> None:
        """Start all parts and wait until they are ready. Raises `RuntimeError` with the end of a log on failure."""
        self._start(self.postgres)
        self.postgres.ensure_database(self.database, _OWNER)
        for login, groups in LOGINS.items():
            self.postgres.ensure_login(login, groups)
        self._start_brokers()
        run_once(["bridge", "migrate"], {"FLEET_DATABASE_URL": self.database_url})
        for replica in self.replicas:
            self._start(replica)
        self._start(self.bridge)
        self._start(self.keeper)
        self._start(self.api)
        _ = self.api_key
        if self._sim_vehicles:
            self._start(Simulator(self.directory, self._sim_vehicles, self._device_addresses))

    def stop(self) -> None:
        """Stop in reverse order, so that no part loses a server that it needs to finish.

        If a part has died, the simulator is killed: it could wait forever for acknowledgements.
        """
        if self.ended():
            for simulator in (part for part in self.started if isinstance(part, Simulator)):
                simulator.process.kill()
        while self.started:
            self.started.pop().stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.stop()

    def ended(self) -> list[Part]:
        """The parts that have ended unexpectedly."""
        return [part for part in self.started if not part.process.running]

    def may_start_again(self, part: Part) -> bool:
        """Whether a part has ended by a signal and may be started again: a program or a replica.

        The data of other servers may be damaged, and a program that ended by itself would end in the same way.
        """
        return self._is_replaceable(part) and (part.process.exit_code or 0) < 0

    def start_again(self, part: Part) -> None:
        """Start a part that has ended. A program is not waited for: what it needs to be ready may have ended as well.

        Raises `RuntimeError` when a replica does not follow.
        """
        if isinstance(part, Replica | Simulator):
            try:
                part.start()
            except RuntimeError:
                if not self.may_start_again(part):
                    raise
        else:
            part.process.start()

    def _is_replaceable(self, part: Part) -> bool:
        """Whether nothing is lost with the part's process."""
        return part is not self.postgres and part not in self.brokers

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses and credentials for clients and administrators, in the order of `<dir>/env`."""
        replicas = {f"REPLICA_URL_{n}": each.url(self.database, _OWNER) for n, each in enumerate(self.replicas, 1)}
        return {**self._device_addresses, "FLEET_DATABASE_URL": self.database_url, **replicas}

    @property
    def database_url(self) -> str:
        """The URL of the database as its owner: for migrations and administrators, not for the programs."""
        return self.postgres.url(self.database, _OWNER)

    @property
    def api_key_file(self) -> Path:
        """The file with the API key, readable by its owner only."""
        return self.directory / "api-key"

    @property
    def api_key(self) -> str:
        """A key with all rights, created once."""
        if not self.api_key_file.exists():
            scopes = [f"--scope={scope}" for scope in ("ingest", "read", "assign", "admin")]
            key = run_once(["api", "key", "create", "local", *scopes], self._api_settings)
            write_private(self.api_key_file, key)
        return read_private(self.api_key_file, "delete it; the next start creates a new key")

    def _start(self, part: Part) -> None:
        self.started.append(part)
        part.start()

    @property
    def _device_addresses(self) -> dict[str, str]:
        return {"FLEET_API_URL": self.api.url, "FLEET_API_KEY": self.api_key, **self._mqtt_addresses}

    @property
    def _bridge_settings(self) -> dict[str, str]:
        return {
            "FLEET_DATABASE_URL": self.postgres.url(self.database, "bridge"),
            **self._source,
            "FLEET_BRIDGE_HTTP_HOST": "127.0.0.1",
            "FLEET_BRIDGE_HTTP_PORT": str(self.ports.bridge_http),
        }

    @property
    def _keeper_settings(self) -> dict[str, str]:
        return {
            "FLEET_DATABASE_URL": self.postgres.url(self.database, "bridge"),
            "FLEET_KEEPER_HTTP_HOST": "127.0.0.1",
            "FLEET_KEEPER_HTTP_PORT": str(self.ports.keeper_http),
            **self._alarm_broker,
        }

    @property
    def _api_settings(self) -> dict[str, str]:
        return {
            "FLEET_DATABASE_URL": self.postgres.url(self.database, "api"),
            "FLEET_HTTP_HOST": "127.0.0.1",
            "FLEET_HTTP_PORT": str(self.ports.http),
            **self._read_database,
        }

    @property
    def _read_database(self) -> dict[str, str]:
        if not self.replicas:
            return {}
        first, *others = (f"127.0.0.1:{replica.port}" for replica in self.replicas)
        url = self.replicas[0].url(self.database, "api")
        return {"FLEET_READ_DATABASE_URL": url.replace(first, ",".join([first, *others]))}

    def _service(self, name: str, argv: Sequence[str], port: int, settings: dict[str, str]) -> Service:
        return Service(f"the {name}", argv, self._logs / f"{name}.log", settings, port)


class Simulator:
    """A small simulated fleet that runs until it is stopped; its ledger is replaced by each run."""

    def __init__(self, directory: Path, vehicles: int, env: dict[str, str]) -> None:
        self._ledger = directory / "ledger"
        argv = ["simulator", "run", f"--vehicles={vehicles}", f"--ledger={self._ledger}", "--connections=1"]
        self.process = program("the simulator", argv, directory / "logs" / "simulator.log", env)

    def start(self) -> None:
        """Start the simulator."""
        self._ledger.unlink(missing_ok=True)
        self.process.start()

    def stop(self) -> None:
        """Stop the simulator after its last acknowledgements, with a complete ledger."""
        self.process.stop()
