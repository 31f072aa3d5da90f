"""The rules of alarms, judged on a real database: each raises in its case and not otherwise, and clears once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from bridge.alarms.judge import Judge
from bridge.settings.alarms import AlarmSettings
from bridge.store.migrate import migrate
from local.postgres import LOGINS, Postgres

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_VEHICLE = (
    "INSERT INTO vehicle_live_status (vehicle_id, ts, received_at, soc, battery_temp) "
    "VALUES ($1, now() + $2 * interval '1 s', now() - $3 * interval '1 s', $4, $5) ON CONFLICT (vehicle_id) DO UPDATE "
    "SET ts = excluded.ts, received_at = excluded.received_at, soc = excluded.soc, battery_temp = excluded.battery_temp"
)
_METER = (
    "INSERT INTO meter_live_status (meter_id, ts, received_at, voltage) VALUES ($1, now(), now(), $2) "
    "ON CONFLICT (meter_id) DO UPDATE SET ts = now(), received_at = now(), voltage = excluded.voltage"
)
_REJECT = (
    "INSERT INTO rejected_message (id, received_at, source, topic, device, reason, detail, payload) "
    "SELECT gen_random_uuid(), now() - $4 * interval '1 minute', 'mqtt', $1, $2, 'not_json', '', '' "
    "FROM generate_series(1, $3)"
)


@pytest.fixture
async def keeper(postgres: Postgres, database_url: str) -> AsyncIterator[Db]:
    """A session with the keeper's login and its settings."""
    postgres.ensure_login("bridge", LOGINS["bridge"])
    await migrate(database_url)
    connection = await keeper_session(postgres, database_url)
    try:
        yield connection
    finally:
        connection.terminate()


async def keeper_session(postgres: Postgres, database_url: str) -> Db:
    url = postgres.url(database_url.rsplit("/", 1)[1], "bridge")
    off = dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off")
    return await asyncpg.connect(url, server_settings=off, command_timeout=30)


async def judge(connection: Db, **settings: object) -> None:
    await Judge(AlarmSettings.model_validate(settings), 60.0).run(connection)


async def vehicle(db: Db, name: str = "EV_1", /, **own: float) -> None:
    """The live row of a vehicle that is well, but for `own`."""
    values = {"drift_s": 0.0, "age_s": 0.0, "soc": 70.0, "battery_temp": 25.0} | own
    at = values["drift_s"] - values["age_s"]
    await db.execute(_VEHICLE, name, at, values["age_s"], values["soc"], values["battery_temp"])


async def opened(db: Db) -> set[tuple[str, str | None]]:
    """Rule and device of the open alarms."""
    return {tuple(row) for row in await db.fetch("SELECT rule, device FROM alarm WHERE cleared_at IS NULL")}


async def counts(db: Db) -> tuple[int, int]:
    """How many alarms were ever raised, and how many are cleared."""
    row = await db.fetchrow("SELECT count(*), count(cleared_at) FROM alarm")
    assert row is not None
    return row[0], row[1]


async def test_fleet_that_is_well_has_no_alarm(keeper: Db, db: Db) -> None:
    await vehicle(db)
    await db.execute(_METER, "M_1", 230.0)
    await db.execute("INSERT INTO device (kind, id) VALUES ('vehicle', 'EV_1'), ('meter', 'M_NEW')")
    await db.execute(_REJECT, "fleet/vehicle/EV_1/telemetry", "EV_1", 10, 5)
    await judge(keeper)
    assert await counts(db) == (0, 0)


@pytest.mark.parametrize(
    ("rule", "beyond", "between", "back"),
    [
        ("silent", {"age_s": 310}, {"age_s": 200}, {"age_s": 30}),
        ("battery-hot", {"battery_temp": 55.1}, {"battery_temp": 52}, {"battery_temp": 50}),
        ("battery-cold", {"battery_temp": -21}, {"battery_temp": -17}, {"battery_temp": -15}),
        ("soc-low", {"soc": 4}, {"soc": 7}, {"soc": 10}),
        ("clock-fast", {"drift_s": 65}, {"drift_s": 45}, {"drift_s": 20}),
        ("clock-slow", {"drift_s": -1000}, {"drift_s": -600}, {"drift_s": -20}),
    ],
)
async def test_vehicle_rule_raises_once_and_clears_once_beyond_its_bounds(
    keeper: Db, db: Db, rule: str, beyond: dict[str, float], between: dict[str, float], back: dict[str, float]
) -> None:
    for state, expected, number in (
        (between, set(), (0, 0)),
        (beyond, {(rule, "EV_1")}, (1, 0)),
        (beyond, {(rule, "EV_1")}, (1, 0)),
        (between, {(rule, "EV_1")}, (1, 0)),
        (beyond, {(rule, "EV_1")}, (1, 0)),
        (back, set(), (1, 1)),
        (between, set(), (1, 1)),
        (beyond, {(rule, "EV_1")}, (2, 1)),
    ):
        await vehicle(db, **state)
        await judge(keeper)
        assert (await opened(db), await counts(db)) == (expected, number), state


@pytest.mark.parametrize(
    ("rule", "beyond", "between", "back"), [("voltage-low", 200, 210, 212), ("voltage-high", 254, 250, 248)]
)
async def test_voltage_outside_its_bounds(
    keeper: Db, db: Db, rule: str, beyond: float, between: float, back: float
) -> None:
    for voltage, expected in ((between, set()), (beyond, {(rule, "M_1")}), (between, {(rule, "M_1")}), (back, set())):
        await db.execute(_METER, "M_1", voltage)
        await judge(keeper)
        assert await opened(db) == expected
    assert await counts(db) == (1, 1)


async def test_alarm_says_what_it_is_about(keeper: Db, db: Db) -> None:
    await db.execute("INSERT INTO device (kind, id, site) VALUES ('vehicle', 'EV_1', 'Nord')")
    await vehicle(db, battery_temp=61.25)
    await judge(keeper)
    row = await db.fetchrow("SELECT * FROM alarm")
    assert row is not None
    found = {
        name: row[name] for name in ("rule", "severity", "kind", "device", "site", "value", "bound", "unit", "message")
    }
    assert found == {
        "rule": "battery-hot",
        "severity": "critical",
        "kind": "vehicle",
        "device": "EV_1",
        "site": "Nord",
        "value": 61.25,
        "bound": 55,
        "unit": "degC",
        "message": "vehicle EV_1: battery temperature 61.25 degC, above 55",
    }


async def test_interval_of_the_register_decides_when_a_device_is_silent(keeper: Db, db: Db) -> None:
    await db.execute(
        "INSERT INTO device (kind, id, interval_s) VALUES ('vehicle', 'EV_SLOW', 3600), ('vehicle', 'EV_FAST', 5)"
    )
    await vehicle(db, "EV_SLOW", age_s=3000)
    await vehicle(db, "EV_FAST", age_s=30)
    await judge(keeper)
    assert await opened(db) == {("silent", "EV_FAST")}


async def test_declared_device_that_never_reported_is_silent_until_it_is_removed(keeper: Db, db: Db) -> None:
    await db.execute(
        "INSERT INTO device (kind, id, created_at) "
        "VALUES ('meter', 'M_NEVER', now() - interval '1 day'), ('meter', 'M_NEW', now())"
    )
    await judge(keeper)
    assert await opened(db) == {("silent", "M_NEVER")}
    await db.execute("DELETE FROM device")
    await judge(keeper)
    assert (await opened(db), await counts(db)) == (set(), (1, 1))


async def test_value_that_is_unknown_changes_nothing(keeper: Db, db: Db) -> None:
    await vehicle(db, soc=1)
    await judge(keeper)
    await db.execute("UPDATE vehicle_live_status SET soc = NULL")
    await judge(keeper)
    assert await opened(db) == {("soc-low", "EV_1")}


async def test_rejects_of_the_last_hour_by_device(keeper: Db, db: Db) -> None:
    await db.execute(_REJECT, "fleet/meter/M_1/telemetry", "M_1", 11, 59)
    await db.execute(_REJECT, "fleet/meter/M_2/telemetry", "M_2", 50, 61)
    await db.execute(_REJECT, None, None, 12, 1)
    await judge(keeper)
    assert await opened(db) == {("many-rejects", "M_1"), ("many-rejects", None)}
    text = "rejected readings of the last hour {} rejects/h, above 10"
    assert {row[0] for row in await db.fetch("SELECT message FROM alarm")} == {
        f"meter M_1: {text.format(11)}",
        f"messages that name no device: {text.format(12)}",
    }
    await db.execute("DELETE FROM rejected_message")
    await judge(keeper)
    await judge(keeper)
    assert (await opened(db), await counts(db)) == (set(), (2, 2))


async def test_first_reading_of_a_device_leaves_its_alarm_of_rejects(keeper: Db, db: Db) -> None:
    await db.execute(_REJECT, None, "EV_1", 11, 1)
    await judge(keeper)
    await vehicle(db)
    await judge(keeper)
    assert (await opened(db), await counts(db)) == ({("many-rejects", "EV_1")}, (1, 0))
    await db.execute("DELETE FROM rejected_message")
    await judge(keeper)
    assert (await opened(db), await counts(db)) == (set(), (1, 1))
    await db.execute(_REJECT, None, "EV_1", 11, 1)
    await judge(keeper)
    assert await db.fetchval("SELECT message FROM alarm WHERE cleared_at IS NULL") == (
        "vehicle EV_1: rejected readings of the last hour 11 rejects/h, above 10"
    )


# -- Quarter hours


async def quarter(db: Db, kind: str, device: str, n: int, **values: float) -> None:
    """A summary of the hour that ends now, its quarter hour `n` (0 to 3), of readings 14 minutes apart."""
    columns = {"readings": 15, "first_us": 0, "last_us": 840_000_000, "is_even": True} | values
    names, places = ", ".join(columns), ", ".join(f"${i}" for i in range(4, 4 + len(columns)))
    bucket = await closed_until(db) - timedelta(minutes=15 * (4 - n))
    await db.execute("SELECT ensure_quarter_partition($1::text::regclass, $2)", f"{kind}_quarter", bucket.date())
    await db.execute(
        f"INSERT INTO {kind}_quarter ({kind}_id, bucket, interval_first, {names}) VALUES ($1, $2, $3, {places})",
        device, bucket, 0, *columns.values(),
    )  # fmt: skip
    await db.execute(
        f"INSERT INTO {kind}_live_status ({kind}_id, ts, received_at) VALUES ($1, now(), now()) ON CONFLICT DO NOTHING",
        device,
    )


async def closed_until(db: Db) -> datetime:
    await db.execute(
        "UPDATE quarter_mark SET marked_until = q, closed_until = q "
        "FROM (SELECT date_bin('15 min', now(), 'epoch') AS q) AS n"
    )
    found: datetime = await db.fetchval("SELECT min(closed_until) FROM quarter_mark")
    return found


@pytest.mark.parametrize(("dc_kwh", "rule"), [(1.2, "efficiency-low"), (1.8, None), (2.4, "efficiency-high")])
@pytest.mark.parametrize("by_register", [False, True])
async def test_efficiency_of_charging(keeper: Db, db: Db, dc_kwh: float, rule: str | None, by_register: bool) -> None:
    await db.execute(
        "INSERT INTO meter_assignment (meter_id, valid_from, vehicle_id) VALUES ('M_1', '2026-01-01Z', 'EV_1')"
    )
    for n in range(4):
        for kind, device, kwh in (("meter", "M_1", 2.0), ("vehicle", "EV_1", dc_kwh)):
            own = {"register_in_first": 100 + n * kwh, "register_in_last": 100 + (n + 1) * kwh} if by_register else {}
            await quarter(db, kind, device, n, interval_in=int(kwh * 1e12), **own)
    await judge(keeper)
    assert await opened(db) == (set() if rule is None else {(rule, "EV_1")})


async def test_efficiency_needs_energy_and_a_whole_assignment(keeper: Db, db: Db) -> None:
    """A meter on standby draws more than goes into the battery; a vehicle that is away loses nothing."""
    await db.execute(
        "INSERT INTO meter_assignment (meter_id, valid_from, vehicle_id) VALUES ('M_1', '2026-01-01Z', 'EV_1'), "
        "('M_2', now() - interval '50 min', 'EV_2')"
    )
    for n in range(4):
        await quarter(db, "meter", "M_1", n, interval_in=int(0.1e12))
        await quarter(db, "vehicle", "EV_1", n, interval_in=0)
        await quarter(db, "meter", "M_2", n, interval_in=int(2e12))
        await quarter(db, "vehicle", "EV_2", n, interval_in=int(1e12))
    await judge(keeper)
    assert await opened(db) == set()


@pytest.mark.parametrize("change", ["begin", "end"])
async def test_efficiency_is_not_judged_in_the_hour_in_which_the_meters_of_a_vehicle_change(
    change: str, keeper: Db, db: Db
) -> None:
    """A second charger has a part of the energy; its assignment begins or ends in the middle of the hour."""
    middle = await closed_until(db) - timedelta(minutes=35)
    await db.execute("INSERT INTO meter_assignment VALUES ('M_1', '2026-01-01Z', 'EV_1')")
    if change == "begin":
        await db.execute("INSERT INTO meter_assignment VALUES ('M_2', $1, 'EV_1')", middle)
    else:
        await db.execute(
            "INSERT INTO meter_assignment VALUES ('M_2', '2026-01-01Z', 'EV_1'), ('M_2', $1, NULL)", middle
        )
    for n in range(4):
        await quarter(db, "meter", "M_1", n, interval_in=int(2e12))
        await quarter(db, "vehicle", "EV_1", n, interval_in=int(3.6e12))
    await judge(keeper)
    assert await opened(db) == set()
    await db.execute("DELETE FROM meter_assignment WHERE meter_id = 'M_2'")
    await judge(keeper)
    assert await opened(db) == {("efficiency-high", "EV_1")}


async def test_power_beyond_the_rated_one(keeper: Db, db: Db) -> None:
    await db.execute(
        "INSERT INTO device (kind, id, rated_kw) "
        "VALUES ('vehicle', 'EV_1', 100), ('meter', 'M_1', 11), ('meter', 'M_2', 11)"
    )
    await quarter(db, "vehicle", "EV_1", 1, steepest_kw=111)
    await quarter(db, "vehicle", "EV_2", 1, steepest_kw=499)
    await quarter(db, "meter", "M_1", 2, interval_in=int(4e12))
    await quarter(db, "meter", "M_2", 2, interval_in=int(2e12), steepest_kw=11.5)
    await judge(keeper)
    assert await opened(db) == {("implausible-power", "EV_1"), ("implausible-power", "M_1")}
    await db.execute("DELETE FROM vehicle_quarter")
    await quarter(db, "vehicle", "EV_1", 3, steepest_kw=90)
    await judge(keeper)
    assert await opened(db) == {("implausible-power", "M_1")}


# -- The system


def certificate(path: Path, days: float) -> Path:
    """A self-signed certificate that expires in so many days."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days))
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path


async def test_first_certificate_to_expire(keeper: Db, db: Db, tmp_path: Path) -> None:
    files = [certificate(tmp_path / "a.pem", 400), certificate(tmp_path / "b.pem", 20)]
    await judge(keeper, alarm_certificate_files=", ".join(map(str, files)))
    assert await opened(db) == {("certificate-expiry", None)}
    certificate(files[1], 90)
    await judge(keeper, alarm_certificate_files=", ".join(map(str, files)))
    assert await counts(db) == (1, 1)


async def test_certificate_that_cannot_be_read_is_told(keeper: Db, db: Db, tmp_path: Path) -> None:
    own = Judge(AlarmSettings(alarm_certificate_files=str(tmp_path / "none.pem")), 60.0)
    await own.run(keeper)
    assert "none.pem" in (own.duty.problem() or "")
    assert await counts(db) == (0, 0)


@pytest.mark.parametrize(("days_left", "is_raised"), [(20, True), (60, False)])
async def test_forecast_of_the_disk(keeper: Db, db: Db, days_left: float, is_raised: bool) -> None:
    gib = 1 << 30
    await db.execute(
        "INSERT INTO database_size SELECT now() - n * interval '6 hours', $1::int8 - n * $2::int8 "
        "FROM generate_series(0, 12) AS n",
        100 * gib,
        gib,
    )
    await judge(keeper, database_limit_gib=100 + 4 * days_left)
    assert await opened(db) == ({("disk-forecast", None)} if is_raised else set())


# -- The bridge


async def bridge(db: Db, name: str = "a", /, *, age_s: float = 0, **own: object) -> None:
    """The row that a bridge last replaced so many seconds ago."""
    values = {"active": True, "problem": None, "lag_s": 0.0} | own
    await db.execute(
        "INSERT INTO process_status AS p (program, instance, version, started_at, active, problem, lag_s, reported_at) "
        "VALUES ('bridge', $1, '1', now(), $2, $3, $4, now() - $5 * interval '1 s') ON CONFLICT (program, instance) "
        "DO UPDATE SET active = $2, problem = $3, lag_s = $4, reported_at = excluded.reported_at",
        name, *values.values(), age_s,
    )  # fmt: skip


async def later(db: Db, seconds: float) -> None:
    """Move everything that is known into the past, as if so much time had gone by."""
    await db.execute(
        f"UPDATE vehicle_live_status SET ts = ts - s, received_at = received_at - s FROM (SELECT {seconds} * "
        "interval '1 s' AS s) AS t"
    )
    times = ("process_status", "reported_at"), ("process_status", "started_at"), ("alarm_pending", "since")
    for table, column in (*times, ("alarm_rule", "changed_at")):
        await db.execute(f"UPDATE {table} SET {column} = {column} - {seconds} * interval '1 s'")
    await db.execute(
        "UPDATE bridge_work SET working_since = working_since - s, working_until = working_until - s "
        f"FROM (SELECT {seconds} * interval '1 s' AS s) AS t"
    )


async def works_for(keeper: Db, db: Db, seconds: int) -> None:
    """The bridge reports, and the keeper judges."""
    for _ in range(seconds // 29):
        await later(db, 29)
        await bridge(db)
        await judge(keeper)


@pytest.mark.parametrize(
    "fault", ["killed", "stopped in order", {"problem": "no connection"}, {"lag_s": 900.0}, {"active": False}]
)
async def test_bridge_that_does_not_work_is_one_alarm_and_silences_of_before_stay(
    keeper: Db, db: Db, fault: str | dict[str, Any]
) -> None:
    for n in range(20):
        await vehicle(db, f"EV_{n}")
    await vehicle(db, "EV_GONE", age_s=1000)
    await bridge(db)
    await judge(keeper)
    assert await opened(db) == {("silent", "EV_GONE")}

    await later(db, 900)
    if fault == "stopped in order":
        await db.execute("DELETE FROM process_status")
    elif isinstance(fault, dict):
        await bridge(db, **fault)
    await judge(keeper)
    assert await opened(db) == {("silent", "EV_GONE"), ("bridge-down", None)}

    await bridge(db)  # it works again; the devices report one after the other
    await judge(keeper)
    await vehicle(db, "EV_0")
    await judge(keeper)
    assert (await opened(db), await counts(db)) == ({("silent", "EV_GONE")}, (2, 1))

    await works_for(keeper, db, 10 * 29)
    assert (await opened(db), await counts(db)) == ({("silent", "EV_GONE")}, (2, 1))
    await vehicle(db, "EV_0")
    await works_for(keeper, db, 29)
    assert await opened(db) == {("silent", name) for name in ("EV_GONE", *(f"EV_{n}" for n in range(1, 20)))}


async def test_short_pause_of_the_bridge_excuses_no_device(keeper: Db, db: Db) -> None:
    await vehicle(db)
    await bridge(db)
    await judge(keeper)
    await later(db, 14)
    await works_for(keeper, db, 10 * 29)
    assert await opened(db) == {("silent", "EV_1")}


async def test_other_bridge_that_works_is_enough(keeper: Db, db: Db) -> None:
    await vehicle(db)
    await bridge(db, "a", age_s=500)
    await bridge(db, "b")
    await judge(keeper)
    await later(db, 310)
    await bridge(db, "b")
    await judge(keeper)
    assert ("bridge-down", None) not in await opened(db)


@pytest.mark.parametrize(
    "fault", ["killed", "stopped in order", "replaced", {"problem": "no connection"}, {"active": False}]
)
async def test_one_bridge_of_several_that_does_not_work_is_an_alarm(
    keeper: Db, db: Db, fault: str | dict[str, Any]
) -> None:
    """It is noticed while the others work; one that was stopped in order, or waits in standby, is none."""
    await bridge(db, "a")
    await bridge(db, "b")
    await judge(keeper)
    if fault == "stopped in order":
        await db.execute("DELETE FROM process_status WHERE instance = 'b'")
    for _ in range(4):
        await later(db, 29)
        await bridge(db, "a")
        if fault == "replaced":
            await bridge(db, "c")
        if isinstance(fault, dict):
            await bridge(db, "b", **fault)
        await judge(keeper)
    is_lost = fault == "killed" or fault == {"problem": "no connection"}
    assert await opened(db) == ({("bridge-lost", None)} if is_lost else set())

    await bridge(db, "b")
    await judge(keeper)
    assert await opened(db) == set()


async def test_bridge_that_was_removed_is_forgotten_after_a_week(keeper: Db, db: Db) -> None:
    await vehicle(db)
    await bridge(db)
    await judge(keeper)
    await db.execute("DELETE FROM process_status")
    await later(db, 6 * 86_400)
    await judge(keeper)
    assert await opened(db) == {("bridge-down", None)}
    await later(db, 2 * 86_400)
    await judge(keeper)
    assert await opened(db) == {("silent", "EV_1")}


# -- Conditions that must last


async def test_condition_must_last_without_a_break_before_it_raises(keeper: Db, db: Db) -> None:
    await db.execute("UPDATE alarm_rule SET for_s = 600 WHERE name IN ('battery-hot', 'disk-forecast')")
    for seconds, temperature, expected in (
        (0, 60, 0), (590, 60, 0), (5, 54, 0), (0, 60, 0), (590, 60, 0), (10, 60, 1), (0, 52, 1), (700, 60, 1),
        (0, 50, 0), (0, 60, 0), (700, 60, 1),
    ):  # fmt: skip
        await later(db, seconds)
        await vehicle(db, battery_temp=temperature)
        await judge(keeper)
        assert len(await opened(db)) == expected, (seconds, temperature)
    assert await counts(db) == (2, 1)
    assert await db.fetchval("SELECT message FROM alarm LIMIT 1") == (
        "vehicle EV_1: battery temperature 60 degC, above 55 for 600 s"
    )
    assert await db.fetchval("SELECT count(*) FROM alarm_pending") == 0


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM alarm_rule", "UPDATE alarm_rule SET enabled = false", "UPDATE alarm_rule SET site = 'x'"],
)
async def test_condition_is_forgotten_with_its_rule(keeper: Db, db: Db, change: str) -> None:
    await db.execute("UPDATE alarm_rule SET for_s = 600")
    await vehicle(db, soc=1)
    await judge(keeper)
    assert await db.fetchval("SELECT count(*) FROM alarm_pending") == 1
    await db.execute(change)
    await judge(keeper)
    assert await db.fetchval("SELECT count(*) FROM alarm_pending") == 0


async def test_time_before_a_change_of_the_rule_does_not_count(keeper: Db, db: Db) -> None:
    await db.execute("UPDATE alarm_rule SET for_s = 600 WHERE name = 'soc-low'")
    await vehicle(db, soc=1)
    await judge(keeper)
    await later(db, 599)
    await db.execute("UPDATE alarm_rule SET changed_at = now() WHERE name = 'soc-low'")
    await vehicle(db, soc=1)
    await later(db, 1)
    await judge(keeper)
    assert await opened(db) == set()
    await later(db, 600)
    await vehicle(db, soc=1)
    await judge(keeper)
    assert await opened(db) == {("soc-low", "EV_1")}


# -- Rules


async def test_rule_of_a_site_or_device_concerns_no_other(keeper: Db, db: Db) -> None:
    await db.execute(
        "INSERT INTO device (kind, id, site) VALUES ('vehicle', 'EV_1', 'Nord'), ('vehicle', 'EV_2', 'Süd')"
    )
    await db.execute("UPDATE alarm_rule SET site = 'Nord' WHERE name = 'soc-low'")
    await db.execute("UPDATE alarm_rule SET device = 'EV_2' WHERE name = 'battery-hot'")
    for name in ("EV_1", "EV_2", "EV_3"):
        await vehicle(db, name, soc=1, battery_temp=80)
    await judge(keeper)
    assert await opened(db) == {("soc-low", "EV_1"), ("battery-hot", "EV_2")}


@pytest.mark.parametrize(
    "change", ["DELETE FROM alarm_rule", "UPDATE alarm_rule SET enabled = false", "UPDATE alarm_rule SET site = 'x'"]
)
async def test_alarm_is_cleared_when_its_rule_no_longer_applies(keeper: Db, db: Db, change: str) -> None:
    await vehicle(db, soc=1)
    await judge(keeper)
    await db.execute(change)
    await judge(keeper)
    assert (await opened(db), await counts(db)) == (set(), (1, 1))


async def test_two_keepers_raise_one_alarm_and_one_notification(
    keeper: Db, db: Db, postgres: Postgres, database_url: str
) -> None:
    await db.execute("INSERT INTO alarm_webhook (id, url, secret) VALUES ('w', 'http://127.0.0.1:9', 's')")
    other = await keeper_session(postgres, database_url)
    try:
        for n in range(50):
            await vehicle(db, f"EV_{n}", soc=1)
        await asyncio.gather(*(judge(connection, alarm_mqtt_url="mqtt://x") for connection in (keeper, other)))
        assert (await counts(db), await deliveries(db)) == ((50, 0), {("raised", "mqtt"): 50, ("raised", "w"): 50})
        for n in range(50):
            await vehicle(db, f"EV_{n}")
        await asyncio.gather(*(judge(connection, alarm_mqtt_url="mqtt://x") for connection in (keeper, other)))
    finally:
        other.terminate()
    assert await counts(db) == (50, 50)
    assert await deliveries(db) == {(event, target): 50 for event in ("raised", "cleared") for target in ("mqtt", "w")}


async def deliveries(db: Db) -> dict[Any, int]:
    return {
        (event, target): n
        for event, target, n in await db.fetch("SELECT event, target, count(*) FROM alarm_delivery GROUP BY 1, 2")
    }
