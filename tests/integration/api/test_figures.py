"""The cases of DESIGN 5 through the whole stack: readings come in by HTTP or MQTT, figures go out by HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest

from bridge.contract import METER, VEHICLE
from bridge.formats.contract_json import encode_many, topic_of
from bridge.formats.port import MAX_READINGS_PER_MESSAGE
from bridge.reading import Reading, format_timestamp, reading
from local.mosquitto import Mosquitto
from tests.bridges import serving
from tests.devices import device
from tests.integration.api.server import Connection, different
from tests.keepers import keeper_processes, summarize
from tests.until import until

pytestmark = pytest.mark.anyio

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
WHOLE_DAY = ("00:00", "24:00")


def at(clock: str) -> datetime:
    """A time of the day, `HH:MM[:SS]`; hours from 24 on are of the day after."""
    hours, minutes, seconds = (*map(float, clock.split(":")), 0.0)[:3]
    return DAY + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def series(kind: Any, first: str, step_s: float, values: Sequence[float | None], column: str) -> list[Reading]:
    """Readings of one measure at a steady pace; None is a lost one."""
    name = "V" if kind is VEHICLE else "M"
    times = (at(first) + timedelta(seconds=n * step_s) for n in range(len(values)))
    return [reading(kind, name, t, {column: v}) for t, v in zip(times, values, strict=True) if v is not None]


def ac(first: str, *values: float | None, step_s: float = 60) -> list[Reading]:
    return series(METER, first, step_s, values, "kwh_consumed_ac")


def dc(first: str, *values: float | None, step_s: float = 60) -> list[Reading]:
    return series(VEHICLE, first, step_s, values, "kwh_delivered_dc")


def imports(first: str, *values: float | None) -> list[Reading]:
    return series(METER, first, 60, values, "kwh_import_register")


def temperatures(first: str, step_s: float, *values: float) -> list[Reading]:
    return series(VEHICLE, first, step_s, values, "battery_temp")


class Case(NamedTuple):
    """What is stored and declared, the period that is asked for, and what the answer for vehicle V has."""

    readings: list[Reading]
    expected: dict[str, object]
    period: tuple[str, str] = WHOLE_DAY
    assigned: Sequence[tuple[str, str | None]] = (("00:00", "V"),)
    """When which vehicle gets the meter M, in turn."""
    intervals: Mapping[str, float] = MappingProxyType({})
    """Declared, in seconds, by the plural of the kind."""
    gaps: int | None = None

    @property
    def query(self) -> dict[str, str]:
        """The period as parameters."""
        return {name: format_timestamp(at(clock)) for name, clock in zip(("from", "to"), self.period, strict=True)}


CHARGE = [*ac("10:01", *[1.0] * 10), *dc("10:01", *[0.9] * 10)]
DRIVE = dc("10:11", *[-0.6] * 10, *[0.1] * 10)
QUARTERLY = {"meters": 900.0}
REGISTER = {"complete": False, "suspectKwh": 0}
CASES = {
    "1 an interval that ends with the assignment": Case(
        ac("10:00", 5.0),
        {"totalKwhConsumedAc": 5.0},
        assigned=[("09:00", "V"), ("10:00", None)],
        intervals=QUARTERLY,
    ),
    "2 an interval across two assignments": Case(
        ac("10:15", 6.0),
        {"totalKwhConsumedAc": 2.0, "dividedKwh": 6.0, "boundaryKwh": 0, "unassignedKwh": 0},
        assigned=[("09:00", "V"), ("10:05", "B")],
        intervals=QUARTERLY,
    ),
    "2 the other of the two": Case(
        ac("10:15", 6.0),
        {"totalKwhConsumedAc": 4.0, "dividedKwh": 6.0, "unassignedKwh": 0},
        assigned=[("09:00", "A"), ("10:05", "V")],
        intervals=QUARTERLY,
    ),
    "3 an interval after whose assignment is none": Case(
        ac("10:15", 6.0),
        {"totalKwhConsumedAc": 6.0, "dividedKwh": 6.0, "unassignedKwh": 0},
        assigned=[("09:00", "V"), ("10:05", None)],
        intervals=QUARTERLY,
    ),
    "3 energy that no assignment overlaps": Case(
        ac("10:15", 6.0, 3.0, step_s=900),
        {"totalKwhConsumedAc": 6.0, "dividedKwh": 6.0, "unassignedKwh": 3.0},
        assigned=[("09:00", "V"), ("10:05", None)],
        intervals=QUARTERLY,
    ),
    "3 a charge that begins with the assignment, within a minute of both": Case(
        [*ac("10:00:30", 0.0, 0.5, *[1.0] * 8), *dc("10:00:45", 0.0, 0.675, *[0.9] * 8)],
        {"totalKwhConsumedAc": 8.5, "totalKwhDeliveredDc": 7.875, "chargeKwhAc": 7.75, "chargeKwhDc": 6.975},
        assigned=[("10:01", "V")],
    ),
    "3 a hand-over within an interval is in no efficiency": Case(
        [*ac("10:00", 0.0, 6.0, 9.0, step_s=900), *dc("10:00", *[0.0] * 6, *[0.54] * 25)],
        {"totalKwhConsumedAc": 13.0, "dividedKwh": 6.0, "chargeKwhAc": 9.0, "chargeKwhDc": 8.1, "efficiency": 0.9},
        assigned=[("09:00", "A"), ("10:05", "V")],
        intervals=QUARTERLY,
    ),
    "4 a period that begins within an interval": Case(
        ac("00:00", *[4.0] * 6, step_s=900),
        {"totalKwhConsumedAc": 14.0, "boundaryKwh": 4.0, "dividedKwh": 0, "acCoverage": 1.0},
        period=("00:07:30", "01:00"),
    ),
    "5 a lost reading of a register": Case(
        imports("10:00", 100.0, 101.0, None, 103.5),
        {"totalKwhConsumedAc": 3.5, "acCoverage": 1.0},
        period=("10:00", "10:03"),
        gaps=1,  # of the vehicle, which says nothing at all
    ),
    "6 a register that is reset": Case(
        imports("10:00", 17.0, 17.6, 0.2, 0.9), {"totalKwhConsumedAc": 1.5, "resets": 1, "complete": False}
    ),
    "7 a register with jitter": Case(
        imports("10:00", 10.0, 9.9, 9.8, 10.0, 10.1), {"totalKwhConsumedAc": 0.1, "resets": 0, "suspectKwh": 0}
    ),
    "8 a register that jumps": Case(
        imports("10:00", 10.0, 9334.0, 9334.1), {"totalKwhConsumedAc": 0.1, "suspectKwh": 9324.0, "resets": 0}
    ),
    "9 the first reading of a register": Case(imports("10:00", 4711.0), {"totalKwhConsumedAc": 0, "suspectKwh": 0}),
    "10 a complete day of quarters": Case(
        ac("00:15", *[0.5] * 96, step_s=900), {"totalKwhConsumedAc": 48.0, "acCoverage": 1.0}
    ),
    "11 a burst": Case(
        dc("00:00:00.1", *[1e-6] * 9000, step_s=0.1), {"dcCoverage": 900 / 86400, "coverage": 900 / 86400}
    ),
    "12 two a minute for half an hour": Case(
        dc("10:00:30", *[0.1] * 60, step_s=30), {"dcCoverage": 0.5}, period=("10:00", "11:00"), assigned=(), gaps=1
    ),
    "13 a charge and a drive": Case(
        [*CHARGE, *DRIVE, *ac("10:11", *[0.0] * 20)],
        {"efficiency": 0.9, "totalKwhDeliveredDc": 4.0, "chargeKwhAc": 10.0, "chargeKwhDc": 9.0},
    ),
    "14 a second charge at no meter of ours": Case(
        [*CHARGE, *DRIVE, *dc("10:31", *[0.8] * 10), *ac("10:11", *[0.0] * 20)],
        {"efficiency": 0.9, "totalKwhDeliveredDc": 12.0},
    ),
    "15 a car that is silent for half of the charge": Case(
        [*ac("10:01", *[1.0] * 10), *dc("10:01", *[0.9] * 5)],
        {"efficiency": 0.9, "chargeKwhAc": 5.0, "dcCoverage": 0.5},
        period=("10:00", "10:10"),
        gaps=1,
    ),
    "16 a meter that is silent for six hours": Case(
        ac("00:15", *[0.5] * 48, *[None] * 24, *[0.5] * 24, step_s=900),
        {"acCoverage": 0.75, "complete": False},
        gaps=2,  # the meter's six hours, and the day of the vehicle
    ),
    "17 vehicle to grid": Case(
        [*ac("10:01", *[1.0] * 10, *[-0.37] * 10), *dc("10:01", *[0.93] * 10, *[-0.4] * 10)],
        {"efficiency": 0.93, "dischargeEfficiency": 0.925, "dischargeKwhDc": 4.0, "dischargeKwhAc": 3.7},
    ),
    "18 temperatures two hours apart": Case(
        temperatures("06:00", 7200, 0, 20, 0), {"avgBatteryTemp": 15.0}, ("07:00", "09:00"), (), {"vehicles": 7200.0}
    ),
    "18 the part of a line": Case(
        temperatures("06:00", 7200, 0, 20, 0), {"avgBatteryTemp": 10.0}, ("06:30", "07:30"), (), {"vehicles": 7200.0}
    ),
    "19 two trips": Case(
        [*temperatures("08:00", 60, *[10.0] * 31), *temperatures("17:00", 60, *[40.0] * 11)],
        {"avgBatteryTemp": 17.5},
        assigned=(),
    ),
    "20 a vehicle that never reported": Case(
        ac("10:01", *[1.0] * 10),
        {"totalKwhConsumedAc": 10.0, "totalKwhDeliveredDc": None, "efficiency": None, "dcCoverage": 0},
    ),
}


@pytest.fixture(params=["http", "mqtt"])
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def send(
    way: str, client: httpx.AsyncClient, broker: Mosquitto, database_url: str, db: Connection
) -> AsyncIterator[Any]:
    """Stores readings, by HTTP or through the broker and a bridge."""

    async def post(readings: Sequence[Reading]) -> None:
        answer = await client.post("/v1/ingest", content=encode_many(readings))
        assert answer.status_code == 201, answer.text

    async def publish(readings: Sequence[Reading]) -> None:
        async with device(broker.url) as gateway:
            for topic in sorted({topic_of(r) for r in readings}):
                own = [r for r in readings if topic_of(r) == topic]
                for start in range(0, len(own), MAX_READINGS_PER_MESSAGE):
                    await gateway.publish(topic, encode_many(own[start : start + MAX_READINGS_PER_MESSAGE]), 1)
        await until(lambda: _all_stored(db, len(readings)))

    if way == "http":
        yield post
    else:
        async with serving(broker.bridge_url, database_url):
            yield publish


async def _all_stored(db: Connection, count: int) -> bool:
    tables = ("vehicle_telemetry_history", "meter_telemetry_history")
    stored: int = sum([await db.fetchval(f"SELECT count(*) FROM {table}") for table in tables])
    return stored == count


async def declare(client: httpx.AsyncClient, case: Case) -> None:
    """What the case says about its devices and assignments."""
    for plural, interval_s in case.intervals.items():
        path = f"/v1/devices/{plural}/{'V' if plural == 'vehicles' else 'M'}"
        assert (await client.put(path, json={"intervalS": interval_s})).status_code in (200, 201)
    for clock, vehicle_id in case.assigned:
        path = f"/v1/meters/M/assignments/{format_timestamp(at(clock))}"
        assert (await client.put(path, json={"vehicleId": vehicle_id})).status_code in (200, 201)


@pytest.mark.parametrize("name", CASES)
async def test_figures_of_a_case(name: str, send: Any, client: httpx.AsyncClient, db: Connection) -> None:
    case = CASES[name]
    await declare(client, case)
    await send(case.readings)
    answer = await client.get("/v1/analytics/performance/V", params=case.query)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    await summarize(db)
    summarized = (await client.get("/v1/analytics/performance/V", params=case.query)).json()
    assert different(summarized, found) == {}
    assert {key: found[key] for key in case.expected} == pytest.approx(case.expected, abs=1e-12)
    if case.gaps is not None:
        assert len(found["gaps"]) == case.gaps, found["gaps"]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_late_reading_changes_the_answer_at_once(
    is_closed: bool, client: httpx.AsyncClient, db: Connection
) -> None:
    asked = {"from": format_timestamp(at("00:00")), "to": format_timestamp(at("24:00"))}
    await client.post("/v1/ingest", content=encode_many(dc("10:00", 1.0, None, 1.0)))
    if is_closed:
        await summarize(db)
    before = (await client.get("/v1/analytics/performance/V", params=asked)).json()
    await client.post("/v1/ingest", content=encode_many(dc("10:01", 2.0)))
    after = (await client.get("/v1/analytics/performance/V", params=asked)).json()
    await summarize(db)
    assert (await client.get("/v1/analytics/performance/V", params=asked)).json() == after
    assert (before["totalKwhDeliveredDc"], after["totalKwhDeliveredDc"]) == (2.0, 4.0)
    assert len(before["gaps"]) == len(after["gaps"]) + 1


async def test_22_month_is_right_after_a_late_reading_and_a_crash_of_the_keeper(
    tmp_path: Path, client: httpx.AsyncClient, database_url: str, db: Connection
) -> None:
    """The month is over and summarized; the keeper is killed while it makes the summary of the late reading again."""
    first = DAY.replace(day=1) - timedelta(days=31)
    month = {"from": format_timestamp(first), "to": format_timestamp(first + timedelta(days=28)), "of": "meters"}

    async def kwh() -> float:
        (item,) = (await client.get("/v1/analytics/energy", params=month)).json()["items"]
        return float(item["kwhAc"])

    hourly = [reading(METER, "M", first + timedelta(hours=n), {"kwh_consumed_ac": 0.5}) for n in range(1, 28 * 24 + 1)]
    late = hourly.pop(100)
    assert (await client.post("/v1/ingest", content=encode_many(hourly))).status_code == 201
    await summarize(db)
    assert await kwh() == 0.5 * 671
    assert (await client.post("/v1/ingest", content=encode_many([late]))).status_code == 201
    assert await db.fetchval("SELECT count(*) FROM meter_quarter_dirty") == 1
    assert await kwh() == 0.5 * 672
    async with keeper_processes(tmp_path, database_url, 1) as (keeper,), db.transaction():
        await db.execute("LOCK TABLE meter_quarter IN SHARE MODE")  # the keeper waits in the middle of its statement
        await keeper.start()
        await until(lambda: _waits_for_a_lock(db))
        keeper.process.kill()
    assert await kwh() == 0.5 * 672
    await summarize(db)
    assert await db.fetchval("SELECT count(*) FROM meter_quarter_dirty") == 0
    assert await kwh() == 0.5 * 672


async def _waits_for_a_lock(db: Connection) -> bool:
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'meter_quarter'::regclass)"
    return bool(await db.fetchval(waiting))


@pytest.mark.parametrize("is_kept", [False, True], ids=["without a keeper", "with a keeper"])
async def test_detached_day_is_named(is_kept: bool, client: httpx.AsyncClient, db: Connection) -> None:
    """A day that is closed while it is detached is right when it is attached again."""
    asked = {"from": format_timestamp(at("00:00")), "to": format_timestamp(at("24:00"))}
    await client.post("/v1/ingest", content=encode_many(dc("10:00", 1.0)))
    partition = f"vehicle_telemetry_history_{DAY:%Y%m%d}"
    await db.execute(f"ALTER TABLE vehicle_telemetry_history DETACH PARTITION {partition}")
    try:
        if is_kept:
            await summarize(db)
        found = (await client.get("/v1/analytics/performance/V", params=asked)).json()
        pages = [
            (await client.get(path, params=asked | given)).json()
            for path, given in (
                ("/v1/analytics/energy", {"of": "vehicles"}),
                ("/v1/sessions", {"vehicle": "V"}),
                ("/v1/quality", {}),
                ("/v1/analytics/series/vehicles/V", {"measure": "kwhDeliveredDc"}),
            )
        ]
    finally:
        bounds = f"FROM ('{DAY:%F} 00:00+00') TO ('{DAY + timedelta(days=1):%F} 00:00+00')"
        await db.execute(f"ALTER TABLE vehicle_telemetry_history ATTACH PARTITION {partition} FOR VALUES {bounds}")
    assert (found["detachedDays"], found["totalKwhDeliveredDc"], found["complete"]) == ([f"{DAY:%F}"], None, False)
    assert [page["detachedDays"] for page in pages] == [[f"{DAY:%F}"]] * 4
    if is_kept:
        await summarize(db)
        assert await db.fetchval("SELECT count(*) FROM vehicle_quarter") == 1
    again = (await client.get("/v1/analytics/performance/V", params=asked)).json()
    assert (again["detachedDays"], again["totalKwhDeliveredDc"]) == ([], 1.0)
