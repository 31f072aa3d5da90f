"""A figure is the same from the summaries of quarter hours and from the readings."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.energy.spans import Span
from api.measured import measured
from api.measured_sql import Question
from api.period import Period
from api.problems import Problem
from bridge.contract import METER, VEHICLE, Kind
from bridge.reading import Reading, format_timestamp, reading
from bridge.store.postgres import PostgresStore
from tests.integration.api.server import Connection, different
from tests.keepers import summarize

pytestmark = pytest.mark.anyio

START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=4)
LENGTH = timedelta(hours=50)
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe")
COLUMNS = {
    VEHICLE: ("kwh_delivered_dc", "kwh_charged_register", "kwh_discharged_register", "battery_temp"),
    METER: ("kwh_consumed_ac", "kwh_import_register", "kwh_export_register", "voltage"),
}
SORTS = {"intervals": (0,), "registers": (1, 2), "import": (1,), "both": (0, 1), "all": (0, 1, 2), "none": ()}
DEVICES = [(kind, sort) for kind in (VEHICLE, METER) for sort in SORTS]


def history(random_: random.Random, kind: Kind, name: str, sort: str) -> Iterator[Reading]:
    """Two days of a device of which everything that the rules name happens."""
    interval = random_.choice([20.0, 60.0, 60.0, 300.0, 900.0, 1800.0])
    counters = [random_.uniform(0, 1000), random_.uniform(0, 1000)]
    at, rate = START, 0.0
    while at < START + LENGTH:
        if random_.random() < 0.02:
            rate = random_.choice([0.0, 0.0, 11.0, 50.0, -20.0, 0.05])
        if random_.random() < 0.003:
            at += timedelta(hours=random_.choice([0.1, 0.3, 1, 7]))
        energy = round(rate * interval / 3600 * random_.choice([1, 1, 1, 0, 0.5]), random_.choice([3, 6, 12]))
        for n, sign in enumerate((1, -1)):
            counters[n] += max(0.0, sign * energy)
            if random_.random() < 0.001:
                counters[n] *= random_.choice([0.0, 0.95, 0.9999, 1.5])
        values = [energy, round(counters[0], 3), round(counters[1], 3)]
        sent = {COLUMNS[kind][n]: values[n] for n in SORTS[sort]}
        if sort == "none" or random_.random() < 0.97:
            sent[COLUMNS[kind][3]] = round(random_.uniform(0, 40), 1)
        if random_.random() < 0.01 and len(sent) > 1:
            sent.pop(random_.choice(list(sent)))
        if random_.random() > 0.004 and sent:
            yield reading(kind, name, at, sent)
        at += timedelta(seconds=interval + random_.choice([0, 0, 0, random_.uniform(-2, 2)]))


async def fill(database_url: str, db: Connection, random_: random.Random) -> list[Reading]:
    """Store every sort of device, declare some, and assign the meters; a tenth of the readings is not stored yet."""
    late: list[Reading] = []
    store = PostgresStore(database_url)
    for kind, sort in DEVICES:
        own = list(history(random_, kind, name_of(kind, sort), sort))
        withheld = set(random_.sample(range(len(own)), len(own) // 10)) if sort != "both" else set[int]()
        late += [own[n] for n in sorted(withheld)]
        await store.write([r for n, r in enumerate(own) if n not in withheld])
        if random_.random() < 0.4:
            await db.execute(
                "INSERT INTO device (kind, id, interval_s, rated_kw) VALUES ($1, $2, $3, $4)",
                *(kind.name, name_of(kind, sort), random_.choice([None, 60.0, 900.0]), random_.choice([None, 22.0])),
            )
    await store.close()
    for sort in SORTS:
        vehicles = [*(name_of(VEHICLE, other) for other in SORTS), None]
        for hour in sorted(random_.sample(range(48), 4)):
            since = START + timedelta(hours=hour, minutes=random_.choice([0, 0, 15, random_.randrange(60)]))
            await db.execute(
                "INSERT INTO meter_assignment VALUES ($1, $2, $3)",
                name_of(METER, sort),
                since,
                random_.choice(vehicles),
            )
    return late


def name_of(kind: Kind, sort: str) -> str:
    return f"{kind.name}_{sort}"


def question(random_: random.Random) -> tuple[str, dict[str, Any]]:
    """A question about one device and a part of the two days."""
    first = timedelta(seconds=random_.choice([900 * random_.randrange(150), random_.uniform(0, 140_000)]))
    length = random_.choice([timedelta(days=1), timedelta(minutes=random_.randrange(1, 2000)), LENGTH])
    period = {"from": format_timestamp(START + first), "to": format_timestamp(START + first + length)}
    kind, sort = random_.choice(DEVICES)
    if kind is VEHICLE and random_.random() < 0.6:
        return f"/v1/analytics/performance/{name_of(kind, sort)}", period
    bucket = random_.choice(["15m", "hour", "day", "total"])
    more = {
        "of": kind.plural,
        "id": name_of(kind, sort),
        "bucket": bucket,
        "tz": random_.choice(ZONES),
        "limit": 10_000,
    }
    return "/v1/analytics/energy", period | more


async def answers(client: httpx.AsyncClient, questions: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    found = []
    for path, parameters in questions:
        answer = await client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


@pytest.mark.parametrize("seed", range(2))
async def test_figures_do_not_depend_on_summaries(
    seed: int, client: httpx.AsyncClient, database_url: str, db: Connection
) -> None:
    random_ = random.Random(seed)
    late = await fill(database_url, db, random_)
    questions = [question(random_) for _ in range(40)]
    from_readings = await answers(client, questions)
    await summarize(db)
    assert await db.fetchval("SELECT count(*) FROM vehicle_quarter") > 500
    for asked, one, other in zip(questions, from_readings, await answers(client, questions), strict=True):
        assert different(other, one) == {}, asked
    store = PostgresStore(database_url)
    await store.write(late)
    await store.close()
    dirty = await db.fetchval("SELECT count(*) FROM vehicle_quarter_dirty")
    with_late = await answers(client, questions)
    await summarize(db)
    assert (dirty > 100, await db.fetchval("SELECT count(*) FROM vehicle_quarter_dirty")) == (True, 0)
    for asked, one, other in zip(questions, with_late, await answers(client, questions), strict=True):
        assert different(other, one) == {}, asked
    await db.execute("UPDATE quarter_mark SET closed_until = DEFAULT")
    for asked, one, other in zip(questions, with_late, await answers(client, questions), strict=True):
        assert different(other, one) == {}, asked


async def test_most_readings_of_a_steady_device_are_not_read(database_url: str, db: Connection) -> None:
    steady = [
        reading(METER, "M", START + timedelta(minutes=n), {"kwh_consumed_ac": 0.1, "kwh_import_register": n / 10})
        for n in range(2 * 1440)
    ]
    store = PostgresStore(database_url)
    await store.write(steady)
    await store.close()
    await summarize(db)
    period = Period(START + timedelta(hours=1, minutes=5), START + timedelta(hours=25, minutes=5))
    found = await measured(db, Question(METER, period), "M", 60.0)
    # Of the period, and of the hour before it, in which the register has its highest value.
    assert (len(found.curve.sums), found.readings(Span(0, period.us(period.end)))) == (95 + 4, 1440)
    assert len(found.curve.at) < 99 * 2 + 30


async def test_readings_that_an_answer_needs_are_bounded(
    monkeypatch: pytest.MonkeyPatch, database_url: str, db: Connection
) -> None:
    """A device that sends each measure in a message of its own has no summaries to use."""
    store = PostgresStore(database_url)
    apart = ({"soc": 50.0}, {"kwh_delivered_dc": 0.1})
    await store.write([reading(VEHICLE, "V", START + timedelta(seconds=n), apart[n % 2]) for n in range(1000)])
    await store.close()
    await summarize(db)
    question = Question(VEHICLE, Period(START, START + timedelta(hours=1)))
    assert (await measured(db, question, "V", 60.0)).readings(Span(0, 3_600_000_000)) == 1000
    monkeypatch.setattr("api.measured._MOST_READINGS", 900)
    with pytest.raises(Problem, match="V has more than 900 readings"):
        await measured(db, question, "V", 60.0)
