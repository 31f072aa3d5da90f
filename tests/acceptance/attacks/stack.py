"""The platform under attack, with the credentials of attacker and victim."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import asyncpg

from api import keys
from local.mosquitto import Mosquitto
from local.parts import Part
from local.platform import Platform
from mosquitto import broker, provisioning
from mosquitto.device import device
from tests.acceptance.attacks.attack import ATTACKER, Target
from tests.acceptance.attacks.victim import HTTP_VICTIM, MQTT_VICTIM, Access
from tests.acceptance.attacks.watch import size_mib

_OTHERS = [f"{ATTACKER}_{n}" for n in range(2, 21)]
_HISTORY = f"""
SELECT ensure_partition('vehicle_telemetry_history', day::date)
FROM generate_series(date_trunc('day', now() - interval '3 hours'), now(), interval '1 day') AS day;
INSERT INTO vehicle_telemetry_history (vehicle_id, ts, soc, extra)
SELECT '{ATTACKER}', date_trunc('second', now()) - n * interval '1 s', 50,
       jsonb_build_object('note', repeat('x', 16000))
FROM generate_series(1, 10000) AS n;
INSERT INTO vehicle_live_status (vehicle_id, ts, received_at) VALUES ('{ATTACKER}', now() - interval '1 s', now());
"""
"""Readings of the attacker with the largest unknown fields: 160 MB of answers that take little of the disk."""


async def _keys(database_url: str, sees: Mapping[str, str]) -> dict[str, str]:
    """A key for each name, with the scopes `ingest` and `read`, limited to what it sees."""
    db = await asyncpg.connect(database_url)
    try:
        grants = {name: keys.Grant(("ingest", "read"), (devices,)) for name, devices in sees.items()}
        async with db.transaction():
            return {name: (await keys.create(db, name, grant))[1] for name, grant in grants.items()}
    finally:
        await db.close()


class _Broker(Mosquitto):
    """The project's configuration, with lines replaced where a test takes a bound away."""

    replaced: Mapping[str, str] = {}

    def _adapted(self, conf: str) -> str:
        conf = super()._adapted(conf)
        for line, other in self.replaced.items():
            assert line in conf, line
            conf = conf.replace(line, other)
        return conf


class _Platform(Platform):
    """The platform with settings of its own."""

    def __init__(self, directory: Path, settings: Mapping[str, str], conf: Mapping[str, str]) -> None:
        self._own = dict(settings)
        super().__init__(directory)
        old = self.broker
        self.broker = _Broker(old.directory, port=old.port, tls_port=old.tls_port, password_port=old.password_port)
        self.broker.replaced = conf
        self.bridge = self._service("bridge", ["bridge", "run"], self.ports.bridge_http, self._bridge_settings)

    @property
    def _bridge_settings(self) -> dict[str, str]:
        return super()._bridge_settings | self._own

    @property
    def _api_settings(self) -> dict[str, str]:
        return super()._api_settings | self._own


class Stack:
    """Everything, started; `close` ends it. `settings` and lines of mosquitto.conf may take bounds away."""

    def __init__(
        self, directory: Path, settings: Mapping[str, str] | None = None, conf: Mapping[str, str] | None = None
    ) -> None:
        self._directory = directory
        self.platform = _Platform(directory / "platform", settings or {}, conf or {})
        try:
            self.platform.start()
            self._provision()
        except BaseException:
            self.close()
            raise

    def _provision(self) -> None:
        of_broker = self.platform.broker.provisioning
        names = [ATTACKER, MQTT_VICTIM, *_OTHERS]
        vehicles = [device("vehicle", name) for name in names]
        provisioning.add_certificates(of_broker, vehicles, timedelta(days=1))
        broker.reload(of_broker)
        self._credentials = {
            name: str(of_broker.credentials(str(vehicle))) for name, vehicle in zip(names, vehicles, strict=True)
        }
        sees = {name: name for name in (ATTACKER, HTTP_VICTIM)} | dict.fromkeys(_OTHERS, f"{ATTACKER}*")
        self._keys = asyncio.run(_keys(self.platform.database_url, sees))
        self.platform.postgres.sql(_HISTORY, self.platform.database)

    def close(self) -> None:
        """End everything at once: nothing of it is needed any more."""
        for process in (part.process for part in reversed(self.platform.started[1:])):
            process.kill()
        self.platform.stop()

    def target(self, mqtt_bytes_per_s: float) -> Target:
        """For the attacker."""
        ports = self.platform.ports
        others = [{"vehicle": n, "credentials": self._credentials[n], "key": self._keys[n]} for n in _OTHERS]
        credentials, key = self._credentials[ATTACKER], self._keys[ATTACKER]
        return Target(ports.http, ports.mqtt_tls, credentials, key, mqtt_bytes_per_s, others=others)

    @property
    def victim(self) -> Access:
        """For the victim."""
        platform = self.platform
        return Access(
            platform.ports.mqtt_tls,
            self._credentials[MQTT_VICTIM],
            platform.api.url,
            self._keys[HTTP_VICTIM],
            platform.database_url,
        )

    @property
    def pids(self) -> dict[str, int]:
        """The processes whose memory is measured."""
        parts: dict[str, Part] = {
            "bridge": self.platform.bridge,
            "api": self.platform.api,
            "broker": self.platform.broker,
        }
        return {name: part.process.pid for name, part in parts.items()}

    @property
    def ports(self) -> list[int]:
        """The ports on which clients connect."""
        ports = self.platform.ports
        return [ports.http, ports.mqtt, ports.mqtt_tls, ports.mqtt_password, self.platform.broker.bridge_port]

    @property
    def disk_mib(self) -> float:
        """The database without its log, which is recycled; the broker's queue; the logs."""
        database = self.platform.postgres.sql(f"SELECT pg_database_size('{self.platform.database}')")
        directories = (self.platform.broker.directory, self.platform.directory / "logs")
        return int(database) / 2**20 + sum(map(size_mib, directories))
