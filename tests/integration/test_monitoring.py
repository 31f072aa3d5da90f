"""Every query of the dashboards and rules, against a real PostgreSQL and a Prometheus that reads real programs."""

import json
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeAlias

import asyncpg
import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from api import keys
from bridge.contract import METER, VEHICLE
from bridge.formats.contract_json import encode, encode_many
from bridge.reading import Reading, device_id, format_timestamp, reading
from bridge.sources.jetstream_metrics import JetStreamMetrics
from bridge.sources.kafka_metrics import KafkaMetrics
from bridge.store import analyst
from bridge.store.migrate import migrate
from local.alarms_page import alarms
from local.mosquitto import Mosquitto
from local.ports import free_port
from local.postgres import LOGINS, Postgres
from local.process import Process
from mosquitto import authority
from tests import grafana
from tests.bridges import bridge_process
from tests.databases import new_database
from tests.devices import publish_with_paho
from tests.integration.api.server import launch
from tests.keepers import keeper_processes
from tests.prometheus import Prometheus, configuration, names, program
from tests.readings import now_minute
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

DOCS = Path(__file__).resolve().parents[2] / "docs"
PASSWORD = "correct-horse-battery"
MINUTE = timedelta(minutes=1)
VALUES = {"site": ["North", "O'Hare", "-"], "vehicle": ["EV_1", "EV_2"], "bucket": ["15m"]}
SQL, PROMQL = grafana.targets("rawSql"), grafana.targets("expr")


def _names_of_options() -> set[str]:
    """The metrics of the sources, of the relay and of replicas, which the tested system does not have."""
    registry = CollectorRegistry()
    KafkaMetrics(registry)
    JetStreamMetrics(registry)
    families = registry.collect()
    of_relay = {"fleet_relay_acks_total", "fleet_relay_waiting"}
    of_replicas = {f"fleet_replica_{name}" for name in ("answers_total", "fallbacks_total", "lag_seconds", "usable")}
    return {f.name + ("_total" if f.type == "counter" else "") for f in families} | of_relay | of_replicas


OPTIONAL = _names_of_options()


class System(NamedTuple):
    """The running programs with stored readings, and who asks."""

    prometheus: Prometheus
    analyst_url: str
    now: datetime
    """The minute in which the readings end."""

    def sql(self, text: str, values: Mapping[str, Sequence[str]] = VALUES) -> str:
        """The SQL of a panel for the days of the readings."""
        return grafana.expanded(text, self.now - timedelta(days=3), self.now + timedelta(hours=1), values)


def of_vehicle(name: str, at: datetime, kwh: float, **others: float) -> Reading:
    values = {"soc": 50.0, "battery_temp": 25.0, "power_kw": kwh * 60, "odometer_km": 1_000.0} | others
    return reading(VEHICLE, device_id(name), at, {"kwh_delivered_dc": kwh, **values})


def of_meter(name: str, at: datetime, kwh: float) -> Reading:
    values = {"kwh_consumed_ac": kwh, "voltage": 230.0, "power_kw": kwh * 60}
    return reading(METER, device_id(name), at, values)


def history(now: datetime) -> list[Reading]:
    """Charges at an assigned meter now and a day ago, a drive, devices that are silent, and unassigned energy."""
    hour = [now - n * MINUTE for n in range(60, -1, -1)]
    yesterday = [at - timedelta(days=1) for at in hour]
    return [
        *(of_vehicle("EV_1", at, 0.15) for at in yesterday + hour),
        *(of_meter("M_1", at, 0.16) for at in yesterday + hour),
        *(of_vehicle("EV_2", at, -0.2) for at in hour),
        *(of_vehicle("EV_3", at, 0.0) for at in yesterday),
        *(of_meter("M_2", at, 0.1) for at in hour),
    ]


async def store(client: httpx.AsyncClient, now: datetime) -> None:
    """Declare and assign devices, and store the history, a conflict among it."""
    for path, body in (
        ("devices/vehicles/EV_1", {"site": "North", "intervalS": 600}),
        ("devices/vehicles/EV_2", {"intervalS": 600}),
        ("devices/meters/M_1", {"site": "O'Hare", "intervalS": 600}),
        ("devices/vehicles/EV_NEVER", {"site": "North"}),
        (f"meters/M_1/assignments/{format_timestamp(now - timedelta(days=9))}", {"vehicleId": "EV_1"}),
    ):
        assert (await client.put(f"/v1/{path}", json=body)).is_success
    answer = await client.post("/v1/ingest", content=encode_many(history(now)))
    assert answer.status_code == 201, answer.text
    other = of_vehicle("EV_1", now, 0.15, soc=51.0)
    assert (await client.post("/v1/ingest", content=encode_many([other]))).status_code == 422


async def publish(broker: Mosquitto, now: datetime) -> None:
    """A stored reading, one with a warning, a duplicate and a reject."""
    stored = encode(of_vehicle("EV_1", now + MINUTE, 0.1))
    warned = json.dumps(json.loads(encode(of_vehicle("EV_1", now + 2 * MINUTE, 0.1))) | {"batteryTemp": "hot"}).encode()
    payloads = (stored, warned, stored, b"not a reading")
    await publish_with_paho(broker.url, "5", [("fleet/vehicle/EV_1/telemetry", payload) for payload in payloads])


@pytest.fixture(scope="module")
def broker_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path_factory.mktemp("monitoring") / "mosquitto")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
async def system(
    postgres: Postgres, template: str, broker_of_module: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """Bridge, keeper, API, node exporter and Prometheus, and what happens in them after the first scrape."""
    directory, broker = tmp_path_factory.mktemp("system"), broker_of_module
    for login, groups in LOGINS.items():
        postgres.ensure_login(login, groups)
    url = new_database(postgres, template)
    await migrate(url)
    name = url.rpartition("/")[2]
    await analyst.ensure_login(postgres.url(name), "grafana", PASSWORD)
    analyst_url = re.sub("//.*@", f"//grafana:{PASSWORD}@", url)

    connection = await asyncpg.connect(url)
    try:
        key = (await keys.create(connection, "test", keys.Grant(keys.scopes(["ingest", "read", "assign"]))))[1]
        # A late reading's mark that the keeper does not work off: of a quarter hour that is not over.
        for kind in (VEHICLE, METER):
            await connection.execute(f"INSERT INTO {kind.dirty_table} VALUES ('LATE', now() + interval '1 day')")
    finally:
        await connection.close()

    certificate = directory / "ca.pem"
    certificate.write_bytes(authority.create()[1])
    node_port = free_port()
    node = Process(
        "node exporter",
        [program("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node_port}"],
        directory / "node.log",
    )
    api = launch(postgres.url(name, "api"), directory / "api.log", {})
    node.start()
    bridge_url = postgres.url(name, "bridge")
    try:
        async with (
            bridge_process(directory, broker.bridge_url, bridge_url) as bridge,
            keeper_processes(directory, bridge_url, 1, alarm_certificate_files=certificate) as (keeper,),
            api.client(key) as client,
        ):
            await keeper.start()
            addresses = {
                "fleet-bridge": f"127.0.0.1:{bridge.port}",
                "fleet-keeper": f"127.0.0.1:{keeper.port}",
                "fleet-api": f"127.0.0.1:{api.port}",
                "node": f"127.0.0.1:{node_port}",
            }
            prometheus = Prometheus(directory, configuration(directory, addresses, key))
            prometheus.start()
            try:
                await until(lambda: list(prometheus.values("up")) == [1.0] * 4, "every program is read")
                now = now_minute()
                await store(client, now)
                await publish(broker, now)
                committed = 'sum(fleet_readings_total{job="fleet-bridge"}) == 4'
                await until(lambda: list(prometheus.values(committed)), "what was published is counted")
                yield System(prometheus, analyst_url, now)
            finally:
                prometheus.process.stop()
    finally:
        node.stop()
        api.process.stop()


@pytest.fixture
async def viewer(system: System) -> AsyncIterator[Db]:
    """The login of Grafana."""
    connection = await asyncpg.connect(system.analyst_url)
    yield connection
    await connection.close()


def single(values: dict[str, list[str]], variables: Sequence[dict[str, object]]) -> dict[str, list[str]]:
    """The values that a viewer can have chosen: one, where the variable is not for several."""
    return {
        str(v["name"]): values[str(v["name"])][: None if v["multi"] else 1] for v in variables if v["name"] in values
    }


# -- SQL


@pytest.mark.parametrize("target", SQL, ids=str)
async def test_panel_shows_rows_to_the_login_of_grafana(target: grafana.Target, system: System, viewer: Db) -> None:
    values = single(VALUES, grafana.DASHBOARDS[target.dashboard]["templating"]["list"])
    rows = await viewer.fetch(system.sql(target.text, values))
    assert rows, "the panel is empty"
    columns = list(rows[0].keys())
    assert any(value is not None for row in rows for key, value in row.items() if key != "time")
    if target.query["format"] == "time_series":
        assert columns[0] == "time"
        times = [row["time"] for row in rows]
        assert times == sorted(times)
    else:
        assert "time" not in columns
    named = {o["matcher"]["options"] for o in target.panel["fieldConfig"]["overrides"]}
    assert named <= set(columns), "units and links of columns that the query does not have"


@pytest.mark.parametrize("name", grafana.DASHBOARDS)
async def test_variables_offer_what_is_stored(name: str, system: System, viewer: Db) -> None:
    for variable in grafana.DASHBOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            rows = await viewer.fetch(system.sql(variable["query"]))
            assert set(VALUES[variable["name"]]) <= {row[0] for row in rows}


def sql_of(dashboard: str, title: str) -> str:
    (found,) = [t for t in SQL if t.dashboard == dashboard and t.panel["title"] == title]
    return found.text


async def test_figures_of_the_panels_are_those_of_the_readings(system: System, viewer: Db) -> None:
    """A few whose answer is known: who charges, drives and is silent, the energy of a day, the sessions."""
    own = {"site": VALUES["site"], "vehicle": ["EV_1"], "bucket": ["15m"]}

    async def first(dashboard: str, title: str) -> asyncpg.Record:
        row = await viewer.fetchrow(system.sql(sql_of(dashboard, title), own))
        assert row is not None
        return row

    now = await first("fleet", "Vehicles")
    assert [now[key] for key in ("vehicles", "charging", "driving", "silent")] == [3, 1, 1, 1]
    assert (await first("vehicle", "DC"))["DC into the battery"] == pytest.approx(2 * 61 * 0.15 + 0.1 + 0.1)
    assert (await first("vehicle", "AC"))["AC of assigned meters"] == pytest.approx(2 * 61 * 0.16)
    assert (await first("sessions", "Totals"))["sessions"] == 2
    assert (await first("quality", "Silent now"))["declared, never reported"] == 1
    unassigned = await first("quality", "Unassigned energy")
    assert (unassigned["meter"], unassigned["unassigned"]) == ("M_2", pytest.approx(61 * 0.1))


# -- PromQL


@pytest.mark.parametrize("target", PROMQL, ids=str)
async def test_panel_has_series_with_values(target: grafana.Target, system: System) -> None:
    query = grafana.promql(target.text)
    if target.panel["title"] == "Alarms" or names(query) & OPTIONAL:
        assert list(system.prometheus.values(query)) == []
        return
    values = await until(lambda: [v for v in system.prometheus.values(query) if math.isfinite(v)], str(target))
    assert values


@pytest.mark.parametrize("alarm", alarms(), ids=lambda alarm: alarm.name)
async def test_rule_is_evaluated_without_error(alarm: object, system: System) -> None:
    def health() -> dict[str, str]:
        groups = system.prometheus.get("rules")["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        rule: dict[str, str] = rules[alarm.name]  # type: ignore[attr-defined]
        return rule if rule["health"] != "unknown" else {}

    rule = await until(health)
    assert (rule["health"], rule.get("lastError", "")) == ("ok", "")


async def test_no_alarm_is_raised_by_a_system_that_works(system: System) -> None:
    """Except for the shares of rejects and warnings, which four messages do not make up for, and the machine's disk."""
    expected = {"FleetRejects", "FleetWarnings", "FleetDiskFull"}
    assert {alert["labels"]["alertname"] for alert in system.prometheus.get("alerts")["alerts"]} <= expected


# -- names


def known_names(system: System) -> set[str]:
    return {*system.prometheus.get("label/__name__/values"), "ALERTS", *OPTIONAL}


async def test_every_metric_of_rules_and_dashboards_is_exposed(system: System) -> None:
    await until(lambda: "fleet_http_request_seconds_bucket" in known_names(system))
    known = known_names(system)
    expressions = [alarm.expression for alarm in alarms()] + [grafana.promql(target.text) for target in PROMQL]
    assert {name for expression in expressions for name in names(expression)} <= known


async def test_every_metric_of_the_documentation_is_exposed(system: System) -> None:
    roots = {re.sub("_(bucket|count|sum|total|created)$", "", name) for name in known_names(system)}
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    found = {name for page in pages for name in re.findall(r"\bfleet_[a-z_]+[a-z]\b", page.read_text())}
    roles = {"fleet_writer", "fleet_reader", "fleet_api"}
    files = set(yaml.safe_load((DOCS.parent / "docker-compose.yml").read_text())["secrets"])
    metrics = {re.sub("_(bucket|count|sum|total)$", "", name) for name in found - roles - files}
    assert "fleet_bridge_leader" in metrics
    assert metrics <= roots, "not exposed by a program"


async def test_dashboards_show_every_metric_that_the_programs_count(system: System) -> None:
    """A new metric is shown somewhere, or it is named here with the reason."""
    not_shown = {"fleet_bridge_leader", "fleet_bridge_shares", "fleet_keeper_leader"}  # the alarms ask them
    own = {re.sub("_(bucket|count|sum|created)$", "", n) for n in known_names(system) if n.startswith("fleet_")}
    shown = {name for target in PROMQL for name in names(grafana.promql(target.text))}
    shown = {re.sub("_(bucket|count|sum)$", "", name) for name in shown}
    counted = {name for name in own if f"{name.removesuffix('_total')}_total" not in own or name.endswith("_total")}
    assert counted - shown == not_shown
