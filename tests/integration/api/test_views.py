"""The SQL views answer as the API does, on stored rows; an analyst's login reads each of them."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from api.energy import buckets, calendar
from api.energy.spans import Span
from api.energy.units import kwh_of
from api.measured import measured
from api.measured_sql import Question
from api.period import Period
from bridge.contract import METER, VEHICLE
from bridge.formats.contract_json import encode_many
from bridge.reading import Reading, format_timestamp, reading
from bridge.store.postgres import PostgresStore
from local.postgres import Postgres
from tests.integration.api import test_energy_by_time as by_time
from tests.integration.api import test_sessions
from tests.integration.api.server import Connection
from tests.integration.api.test_figures import CASES, DAY, ac, at, dc, declare, series

pytestmark = pytest.mark.anyio

DAYS = [DAY + timedelta(days=n) for n in (-1, 0, 1)]
OF_VEHICLE = "SELECT * FROM vehicle_energy_quarter WHERE vehicle_id = $1 AND day = $2 ORDER BY ts"
OF_METER = "SELECT * FROM meter_energy_quarter WHERE meter_id = $1 AND day = $2 ORDER BY ts"
TO_VEHICLE = "SELECT sum(kwh) FROM assigned_energy_quarter WHERE vehicle_id IS NOT DISTINCT FROM $1 AND day = $2"
COLUMNS = {
    "kwh": "kwhAc",
    "kwh_in": "kwhIn",
    "kwh_out": "kwhOut",
    "boundary_kwh": "boundaryKwh",
    "suspect_kwh": "suspectKwh",
    "resets": "resets",
}
SESSIONS = "SELECT * FROM charging_sessions($1, $2, $3)"
SHARES = {"1 an": (5.0, 0.0), "2 an": (2.0, 0.0), "3 an": (6.0, 0.0), "3 en": (6.0, 3.0)}
"""The energy of vehicle V and of none, by the begin of the name of the case."""
FINER = {
    "the vehicle's interval across the end of the assignment": "the API does not cut the vehicle's interval",
}


@pytest.fixture
async def analyst(postgres: Postgres, database_url: str) -> AsyncIterator[Connection]:
    """A connection of a member of fleet_reader."""
    postgres.ensure_login("analyst", ("fleet_reader",))
    connection = await asyncpg.connect(postgres.url("api", "analyst"))
    yield connection
    await connection.close()


async def stored(client: httpx.AsyncClient, name: str) -> None:
    await declare(client, CASES[name])
    await by_time.store(client, CASES[name].readings)


def known(items: Sequence[dict[str, Any]], figure: str) -> dict[datetime, float]:
    """A figure of the API by the begin of its quarter hour, where it is not zero."""
    return {datetime.fromisoformat(item["from"]): item[figure] for item in items if item[figure]}


def shown(rows: Sequence[Any], column: str) -> dict[datetime, float]:
    return {row["ts"]: row[column] for row in rows if row[column]}


# -- energy by quarter hour


@pytest.mark.parametrize("name", CASES)
async def test_quarter_hours_of_a_case_are_those_of_the_api(
    name: str, client: httpx.AsyncClient, analyst: Connection
) -> None:
    await stored(client, name)
    kinds = {r.kind for r in CASES[name].readings}
    for day in DAYS:
        period = {"from": format_timestamp(day), "to": format_timestamp(day + timedelta(days=1)), "bucket": "15m"}
        if METER in kinds:
            meter = await by_time.items(client, of="meters", id="M", **period)
            rows = await analyst.fetch(OF_METER, "M", day.date())
            assert {column: shown(rows, column) for column in COLUMNS} == {
                column: known(meter, figure) for column, figure in COLUMNS.items()
            }
        if VEHICLE in kinds:
            vehicle = await by_time.items(client, of="vehicles", id="V", **period)
            rows = await analyst.fetch(OF_VEHICLE, "V", day.date())
            assert shown(rows, "kwh") == known(vehicle, "kwhDc")


@pytest.mark.parametrize("name", [name for name in CASES if name[:4] in SHARES])
async def test_energy_is_divided_among_vehicles_by_assignment(
    name: str, client: httpx.AsyncClient, analyst: Connection
) -> None:
    await stored(client, name)
    of_vehicle, unassigned = SHARES[name[:4]]
    assert (await analyst.fetchval(TO_VEHICLE, "V", DAY.date()) or 0) == of_vehicle
    assert (await analyst.fetchval(TO_VEHICLE, None, DAY.date()) or 0) == unassigned


async def test_function_answers_a_period_that_cuts_an_interval(client: httpx.AsyncClient, analyst: Connection) -> None:
    """Case 4: the sum over the period, and the intervals across the edge of the first bucket."""
    await stored(client, "4 a period that begins within an interval")
    question = "SELECT * FROM energy_by_quarter('meter', 'M', $1, $2)"
    rows = await analyst.fetch(question, at("00:07:30"), at("01:00"))
    assert (rows[0]["ts"], rows[0]["kwh"], rows[0]["boundary_kwh"]) == (at("00:07:30"), 2.0, 4.0)
    assert sum(row["kwh"] for row in rows) == 14.0


@pytest.mark.parametrize(
    ("name", "of", "covered_s"), [("10 a", OF_METER, 86_400), ("11 a", OF_VEHICLE, 900), ("12 t", OF_VEHICLE, 1_800)]
)
async def test_covered_time_is_that_in_which_energy_is_known(
    name: str, of: str, covered_s: float, client: httpx.AsyncClient, analyst: Connection
) -> None:
    await stored(client, next(case for case in CASES if case.startswith(name)))
    rows = await analyst.fetch(of, "M" if of == OF_METER else "V", DAY.date())
    assert sum(row["covered_s"] for row in rows) == pytest.approx(covered_s, abs=0.1)
    assert max(row["covered_s"] for row in rows) <= 900


async def test_first_reading_of_a_register_is_a_row_without_energy(
    client: httpx.AsyncClient, analyst: Connection
) -> None:
    await stored(client, "9 the first reading of a register")
    (row,) = await analyst.fetch(OF_METER, "M", DAY.date())
    assert (row["ts"], row["kwh"], row["covered_s"], row["readings"]) == (at("10:00"), 0, 0, 1)


async def test_registers_of_both_directions_and_intervals_beside_them(
    client: httpx.AsyncClient, analyst: Connection
) -> None:
    """The register of a direction counts, and the interval only in the other one and outside of the register."""
    readings = [
        reading(METER, "M", at("10:00") + timedelta(minutes=n), values)
        for n, values in enumerate(
            [
                {"kwh_consumed_ac": 0.5},
                {"kwh_consumed_ac": 0.5, "kwh_import_register": 1_000_000.1},
                {"kwh_consumed_ac": -0.25},
                {"kwh_consumed_ac": 0.75, "kwh_import_register": 1_000_000.5},
                {"kwh_export_register": 10.0},
                {"kwh_export_register": 10.3, "kwh_import_register": 1_000_000.4},
                {"kwh_consumed_ac": 0.125, "voltage": 230.0},
            ]
        )
    ]
    await by_time.store(client, readings)
    meter = await by_time.items(client, of="meters", id="M", bucket="15m")
    rows = await analyst.fetch(OF_METER, "M", DAY.date())
    assert shown(rows, "kwh_in") == known(meter, "kwhIn")
    assert shown(rows, "kwh_out") == known(meter, "kwhOut")
    covered = {datetime.fromisoformat(item["from"]): 900 * item["coverage"] for item in meter if item["coverage"]}
    assert shown(rows, "covered_s") == pytest.approx(covered)


@pytest.mark.parametrize(
    ("zone", "day", "kwh"),
    [
        ("Europe/Berlin", "2026-10-25", 25.0),
        ("Europe/Berlin", "2026-03-29", 23.0),
        ("Asia/Kolkata", "2026-10-25", 24.0),
        ("America/St_Johns", "2026-10-25", 24.0),
    ],
)
async def test_21_local_day_is_a_sum_of_quarter_hours(
    zone: str, day: str, kwh: float, database_url: str, analyst: Connection
) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00:00+00:00").astimezone(UTC)
    times = [noon + timedelta(minutes=15 * n) for n in range(-200, 200)]
    store = PostgresStore(database_url)
    await store.write([reading(METER, "M", time, {"kwh_consumed_ac": 0.25}) for time in times])
    await store.close()
    question = (
        "SELECT sum(kwh) FROM meter_energy_quarter WHERE meter_id = 'M' AND day BETWEEN $2::date - 1 AND $2::date + 1 "
        "AND (ts AT TIME ZONE $1)::date = $2"
    )
    assert await analyst.fetchval(question, zone, noon.date()) == pytest.approx(kwh, abs=1e-9)


# -- sessions


@pytest.mark.parametrize("name", test_sessions.CASES)
async def test_sessions_of_a_case_are_those_of_the_api(
    name: str, client: httpx.AsyncClient, analyst: Connection
) -> None:
    case = test_sessions.CASES[name]
    await test_sessions.assign(client, case.assigned)
    await test_sessions.store(client, case.readings)
    rows = await analyst.fetch(SESSIONS, "V", at("00:00"), at("24:00"))
    found = [
        {
            "from": format_timestamp(row["started_at"]),
            "to": format_timestamp(row["ended_at"]),
            "meterIds": row["meter_ids"],
            "kwhAc": row["kwh_ac"],
            "kwhDc": row["kwh_dc"],
            "meanKw": row["mean_kw"],
        }
        for row in rows
    ]
    answered = await test_sessions.ask(client, vehicle="V")
    expected = [{key: item[key] for key in (found or [{}])[0]} for item in answered]
    if name in FINER:
        assert found != expected, f"the documentation says otherwise: {FINER[name]}"
    else:
        assert found == expected


async def test_session_across_midnight_is_one_row_of_its_first_day(
    client: httpx.AsyncClient, analyst: Connection
) -> None:
    await test_sessions.assign(client, [("M", "00:00", "V")])
    await test_sessions.store(client, ac("23:30", *[1.0] * 90))
    rows = await analyst.fetch("SELECT * FROM charging_session WHERE vehicle_id = 'V'")
    found = [(row["day"], row["started_at"], row["ended_at"], row["open_end"]) for row in rows]
    assert found == [(DAY.date(), at("23:29"), at("24:59"), False)]
    assert rows[0]["kwh_ac"] == 90.0


# -- assignments and live


async def test_assignments_are_intervals_with_the_site(client: httpx.AsyncClient, analyst: Connection) -> None:
    await test_sessions.declare(client, M="North")
    await test_sessions.assign(
        client, [("M", "09:00", "A"), ("M", "10:00", "B"), ("M", "11:00", None), ("N", "09:00", "A")]
    )
    rows = await analyst.fetch("SELECT * FROM meter_assignment_interval ORDER BY meter_id, valid_from")
    assert list(map(tuple, rows)) == [
        ("M", "A", at("09:00"), at("10:00"), "North"),
        ("M", "B", at("10:00"), at("11:00"), "North"),
        ("N", "A", at("09:00"), None, None),
    ]


async def test_live_has_the_age_and_who_is_silent(client: httpx.AsyncClient, analyst: Connection) -> None:
    now = datetime.now(UTC)
    for name, age_s in (("FRESH", 10), ("OLD", 1_000), ("UNDECLARED", 1_000)):
        r = reading(VEHICLE, name, now - timedelta(seconds=age_s), {"soc": 50.0})
        assert (await client.post("/v1/ingest", content=encode_many([r]))).status_code == 201
    for name in ("FRESH", "OLD"):
        await by_time.put(client, f"/v1/devices/vehicles/{name}", intervalS=600)
    rows = {row["vehicle_id"]: row for row in await analyst.fetch("SELECT * FROM vehicle_live")}
    assert {name: row["silent"] for name, row in rows.items()} == {"FRESH": False, "OLD": True, "UNDECLARED": None}
    assert 1_000 <= rows["OLD"]["age_s"] < 1_100


async def test_meter_live_has_the_registers(client: httpx.AsyncClient, analyst: Connection) -> None:
    await by_time.store(client, series(METER, "10:00", 60, [5.0, 5.5], "kwh_import_register"))
    (row,) = await analyst.fetch("SELECT * FROM meter_live WHERE age_s > 86400")
    assert (row["meter_id"], row["kwh_import_register"], row["voltage"]) == ("M", 5.5, None)


# -- what a query reads


@pytest.mark.parametrize(
    ("question", "most"),
    [
        ("SELECT * FROM vehicle_energy_quarter WHERE vehicle_id = 'V' AND day = $1", 330),
        ("SELECT * FROM energy_by_quarter('vehicle', 'V', $1::date, $1::date + 1)", 330),
        ("SELECT * FROM charging_session WHERE vehicle_id = 'V' AND day = $1", 760),
    ],
)
async def test_device_and_day_restrict_what_is_read(
    question: str, most: int, client: httpx.AsyncClient, analyst: Connection
) -> None:
    """Of 9 devices with 96 readings a day over 6 days; a session is looked for up to the end of the day after.

    They declare no interval: those of the days are observed too, and four hours before it are read.
    """
    devices, halves = ["V", *(f"V{n}" for n in range(8))], [*[0.0] * 48, *[1.0] * 48]
    for first in (DAY + timedelta(days=n) for n in range(-5, 1)):
        await by_time.store(client, [r for name in devices for r in by_time.charges(name, first, *halves)])
    async with analyst.transaction():
        await analyst.execute("SET LOCAL enable_seqscan = off")
        rows = await analyst.fetch(question, (DAY - timedelta(days=2)).date())
        read = await analyst.fetchval(
            "SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) FROM pg_stat_xact_user_tables "
            "WHERE relname LIKE 'vehicle_telemetry_history%'"
        )
    assert rows
    assert 96 <= read <= most


# -- any readings


def odd_readings(chance: random.Random) -> list[Reading]:
    """Readings of a meter over half a day: intervals and registers in any mix, gaps, lost ones, resets, jumps."""
    at_us, registers, readings = 0, {"kwh_import_register": 1e5, "kwh_export_register": 3.0}, []
    sorts = chance.sample(["kwh_consumed_ac", *registers], chance.randint(1, 3))
    for _ in range(200):
        at_us += round(chance.choice([60e6, 60e6, 60e6, 61.234567e6, 300e6, 1200e6]))
        values: dict[str, float] = {"voltage": 230.0}
        for sort in sorts:
            if sort in registers:
                step = chance.choice([0, 0, 0.1, 0.123456, 1.5, -0.05, chance.choice([0, 9000.0])])
                registers[sort] = round(max(0.0, registers[sort] + step) * chance.choice([1] * 30 + [0]), 6)
            if chance.random() < 0.8:
                values[sort] = registers.get(sort, round(chance.uniform(-0.5, 1.5), 12))
        readings.append(reading(METER, "M", DAY + timedelta(microseconds=at_us), values))
    return readings


@pytest.mark.parametrize("seed", range(12))
async def test_quarter_hours_of_any_readings_are_those_of_the_algebra(
    seed: int, database_url: str, analyst: Connection
) -> None:
    """Digit by digit, for a period whose edges divide intervals."""
    chance = random.Random(seed)
    store = PostgresStore(database_url)
    await store.write(odd_readings(chance))
    await store.close()
    start = DAY + timedelta(minutes=chance.randint(0, 90), seconds=chance.randint(0, 59))
    period = Period(start, start + timedelta(minutes=chance.randint(60, 600), microseconds=chance.randint(0, 10**6)))
    curve = (await measured(analyst, Question(METER, period), "M", 60)).curve
    edges = [period.us(edge) for edge in calendar.edges(period.start, period.end, "15m", UTC)]
    figures = buckets.figures(curve, edges, [Span(0, edges[-1])])
    expected = {
        edge: (*map(kwh_of, each[1:5]), each.resets, each.covered / 1e6)
        for edge, each in zip(edges, figures, strict=False)
    }
    question = "SELECT * FROM energy_by_quarter('meter', 'M', $1, $2)"
    columns = ("kwh_in", "kwh_out", "boundary_kwh", "suspect_kwh", "resets", "covered_s")
    rows = await analyst.fetch(question, period.start, period.end)
    found = {period.us(row["ts"]): tuple(row[column] for column in columns) for row in rows}
    nothing = (0,) * 6
    assert found == {edge: each for edge, each in expected.items() if edge in found}
    assert {each for edge, each in expected.items() if edge not in found} <= {nothing}
    assert any(each != nothing for each in expected.values())


POWERS = [(0.0, 0.0), (0.0, 0.0), (1.0, 0.93), (0.4, 0.35), (0.0, 0.8), (-0.4, -0.5), (0.0, -0.4)]
"""What a meter and a vehicle report in a minute of rest, charge, charge elsewhere, V2G and drive, kWh."""


def ordinary_day(chance: random.Random) -> list[Reading]:
    """Drives with recuperation, charges at the meter and elsewhere, rests; a reading a minute on both sides."""
    drawn: list[float] = []
    charged: list[float] = []
    while len(drawn) < 1200:
        minutes = chance.randint(2, 40)
        ac_kwh, dc_kwh = chance.choice(POWERS)
        is_drive = (ac_kwh, dc_kwh) == POWERS[-1]
        drawn += [ac_kwh] * minutes
        charged += [0.15 if is_drive and chance.random() < 0.3 else dc_kwh for _ in range(minutes)]
    return [*ac("00:30", *drawn[:1200]), *dc("00:30", *charged[:1200])]


@pytest.mark.parametrize("seed", range(8))
async def test_sessions_of_an_ordinary_day_are_those_of_the_api(
    seed: int, client: httpx.AsyncClient, analyst: Connection
) -> None:
    await test_sessions.assign(client, [("M", "00:00", "V")])
    await by_time.store(client, ordinary_day(random.Random(seed)))
    found = [tuple(row)[:5] for row in await analyst.fetch(SESSIONS, "V", at("00:00"), at("24:00"))]
    assert len(found) > 3
    assert found == [
        (
            *(datetime.fromisoformat(item[edge]) for edge in ("from", "to")),
            item["meterIds"],
            item["kwhAc"],
            item["kwhDc"],
        )
        for item in await test_sessions.ask(client, vehicle="V")
    ]
