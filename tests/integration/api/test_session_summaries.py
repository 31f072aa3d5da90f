"""Sessions are the same from the summaries of quarter hours, and readings near a charge, as from all readings."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest

from api import sessions
from api.energy.spans import duration
from api.period import Period
from api.sight import Sight
from bridge.contract import METER, VEHICLE, Kind
from bridge.reading import Reading, format_timestamp, reading
from bridge.store.postgres import PostgresStore
from tests.integration.api.server import Connection
from tests.keepers import summarize

pytestmark = pytest.mark.anyio

START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=4)
LENGTH = timedelta(hours=50)
PAIRS = 3
SORTS: tuple[tuple[int, ...], ...] = ((0,), (1, 2), (0, 1), (1,), (0, 1, 2))
"""Which of interval, register in and register out a device sends."""
COLUMNS = {
    VEHICLE: ("kwh_delivered_dc", "kwh_charged_register", "kwh_discharged_register"),
    METER: ("kwh_consumed_ac", "kwh_import_register", "kwh_export_register"),
}
GAUGES = {VEHICLE: ("soc", "battery_temp", "odometer_km", "power_kw"), METER: ("power_kw",)}
Phase = tuple[datetime, str]


class Sender(NamedTuple):
    """How a device reports."""

    kind: Kind
    name: str
    sort: tuple[int, ...]
    interval: float
    standby_kw: float
    gauge_chance: float


def phases(random_: random.Random) -> list[Phase]:
    """What a vehicle does, from when on: parked for longer or shorter than a pause, charging, driving, feeding back."""
    found, at = [], START
    while at < START + LENGTH:
        state = random_.choice(["parked", "parked", "charge", "charge", "drive", "descent", "v2g"])
        found.append((at, state))
        longest = 500 if state == "parked" and random_.random() < 0.5 else 40
        at += timedelta(minutes=random_.uniform(1, longest))
    return found


def kw(random_: random.Random, kind: Kind, state: str) -> float:
    if state == "drive":
        return random_.choice([-20.0, -8.0, 0.0, 15.0]) if kind is VEHICLE else 0.0
    if state == "descent":
        return 8.0 if kind is VEHICLE else 0.0
    return {"charge": 11.0, "v2g": -9.0}.get(state, 0.0) * (0.9 if kind is VEHICLE else 1.0)


def history(random_: random.Random, sender: Sender, done: list[Phase]) -> Iterator[Reading]:
    """Two days of a device, with gaps, resets, jumps, and gauges in readings of their own."""
    counters, odometer, at = [random_.uniform(0, 1000), random_.uniform(0, 1000)], 1000.0, START
    while at < START + LENGTH:
        state = next(state for since, state in reversed(done) if since <= at)
        if random_.random() < 0.003:
            at += timedelta(minutes=random_.choice([5, 12, 14, 16, 70, 400]))
        energy = round((kw(random_, sender.kind, state) or sender.standby_kw) * sender.interval / 3600, 6)
        odometer += 0.4 if state in ("drive", "descent") else 0.0
        for n, sign in enumerate((1, -1)):
            counters[n] += max(0.0, sign * energy)
            if random_.random() < 0.0008:
                counters[n] *= random_.choice([0.0, 0.95, 0.9999, 1.5])
        values = [energy, round(counters[0], 2), round(counters[1], 2)]
        sent = {COLUMNS[sender.kind][n]: values[n] for n in sender.sort}
        gauges = [random_.uniform(0, 100), random_.uniform(0, 40), odometer, random_.uniform(-20, 20)]
        own = {c: round(v, 1) for c, v in zip(GAUGES[sender.kind], gauges, strict=False) if random_.random() < 0.8}
        if random_.random() < sender.gauge_chance:
            sent |= own
        elif own and random_.random() < sender.gauge_chance:
            yield reading(sender.kind, sender.name, at + timedelta(seconds=sender.interval / 3), own)
        if random_.random() > 0.004:
            yield reading(sender.kind, sender.name, at, sent)
        at += timedelta(seconds=sender.interval + random_.choice([0, 0, 0, random_.uniform(-2, 2)]))


async def fill(database_url: str, db: Connection, random_: random.Random) -> list[Reading]:
    """Store vehicles and meters that mostly do the same; returns readings that are not stored yet."""
    late: list[Reading] = []
    store = PostgresStore(database_url)
    for n in range(PAIRS):
        done = phases(random_)
        for kind in (VEHICLE, METER):
            interval, standby = random_.choice([60.0, 60.0, 120.0, 300.0]), random_.choice([0.0, 0.0, 0.0, 0.01])
            chance = random_.choice([0.0, 0.3, 1.0])
            sender = Sender(kind, f"{kind.name}_{n}", random_.choice(SORTS), interval, standby, chance)
            own = list(history(random_, sender, done))
            withheld = set(random_.sample(range(len(own)), len(own) // 20)) if random_.random() < 0.7 else set()
            late += [own[k] for k in sorted(withheld)]
            await store.write([r for k, r in enumerate(own) if k not in withheld])
        await db.execute(
            "INSERT INTO device (kind, id, site) VALUES ('meter', $1, $2)", f"meter_{n}", random_.choice("AB")
        )
        for since in sorted({START - timedelta(days=1), *random_.sample([at for at, _ in done], 6)}):
            vehicle = random_.choice([f"vehicle_{n}", f"vehicle_{n}", f"vehicle_{n}", "vehicle_0", None])
            await db.execute("INSERT INTO meter_assignment VALUES ($1, $2, $3)", f"meter_{n}", since, vehicle)
    await store.close()
    return late


def question(random_: random.Random) -> dict[str, Any]:
    first = timedelta(seconds=random_.choice([900 * random_.randrange(150), random_.uniform(0, 140_000)]))
    length = random_.choice([timedelta(days=1), timedelta(minutes=random_.randrange(1, 2000)), LENGTH])
    by = random_.choice(["vehicle", "vehicle", "meter", "site"])
    name = random_.choice("AB") if by == "site" else f"{by}_{random_.randrange(PAIRS)}"
    period = {"from": format_timestamp(START + first), "to": format_timestamp(START + first + length)}
    return {by: name, "limit": 1_000} | period


async def answers(client: httpx.AsyncClient, questions: list[dict[str, Any]]) -> list[Any]:
    found = []
    for asked in questions:
        answer = await client.get("/v1/sessions", params=asked)
        if answer.status_code != 404:
            assert answer.status_code == 200, answer.text
        found.append(answer.json().get("items"))
    return found


@pytest.mark.parametrize("seed", range(2))
async def test_sessions_do_not_depend_on_summaries(
    seed: int, client: httpx.AsyncClient, database_url: str, db: Connection
) -> None:
    random_ = random.Random(seed)
    late = await fill(database_url, db, random_)
    questions = [question(random_) for _ in range(30)]
    from_readings = await answers(client, questions)
    assert sum(len(items or ()) for items in from_readings) > 100
    await summarize(db)
    assert await db.fetchval("SELECT count(*) FROM vehicle_quarter WHERE is_even") > 200
    for asked, one, other in zip(questions, from_readings, await answers(client, questions), strict=True):
        assert other == one, asked
    store = PostgresStore(database_url)
    await store.write(late)
    await store.close()
    with_late = await answers(client, questions)
    await summarize(db)
    for asked, one, other in zip(questions, with_late, await answers(client, questions), strict=True):
        assert other == one, asked
    await db.execute("UPDATE quarter_mark SET closed_until = DEFAULT")
    for asked, one, other in zip(questions, with_late, await answers(client, questions), strict=True):
        assert other == one, asked


def a_day(first: datetime) -> Iterator[Reading]:
    """A vehicle drives in the morning and in the evening, and is charged at night, with a reading a minute."""
    for n in range(1440):
        driving, charging = 420 <= n < 450 or 1020 <= n < 1050, 1200 <= n < 1380
        at, dc = first + timedelta(minutes=n), -0.15 if driving else 0.16 if charging else 0.0
        yield reading(VEHICLE, "V", at, {"kwh_delivered_dc": dc, "soc": 50.0 + n % 10, "odometer_km": float(n)})
        yield reading(METER, "M", at, {"kwh_consumed_ac": 0.18 if charging else 0.0, "power_kw": 11.0 * charging})


async def test_readings_far_from_a_charge_are_not_read(database_url: str, db: Connection) -> None:
    store = PostgresStore(database_url)
    await store.write([r for n in range(2) for r in a_day(START + timedelta(days=n))])
    await store.close()
    await db.execute("INSERT INTO meter_assignment VALUES ('M', $1, 'V')", START)
    await summarize(db)
    period = Period(START, START + timedelta(days=2))
    read = await sessions._read(db, Sight(), sessions._Scope("vehicle", "V"), period, 60.0)
    (party,) = read.parties
    assert len(party.sessions()) == 2
    assert party.own is not None
    for found in (party.own, party.feeds[0].measured):
        assert len(found.gauges["powerKw" if found is not party.own else "soc"]) < 2 * 250
        assert duration(found.curve.sums) > 2 * 18 * timedelta(hours=1) / timedelta(microseconds=1)
