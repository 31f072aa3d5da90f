"""Losses and efficiency of the fleet are those of a slow model, which takes them from the readings."""

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
import pytest

from api import keys
from api.remembered import Remembered
from bridge.contract import KINDS, METER, VEHICLE, Kind
from bridge.reading import Reading, reading
from bridge.store.postgres import PostgresStore
from tests.integration.api.server import Api, Connection
from tests.integration.api.test_summaries import COLUMNS
from tests.keepers import summarize
from tests.quarters import quarter_of

pytestmark = pytest.mark.anyio

QUARTER, US = timedelta(minutes=15), timedelta(microseconds=1)
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
HOURS = 9
COUNT = 6
ROUTE = "/v1/analytics/efficiency"


class Fleet(NamedTuple):
    """What the model needs of the database."""

    rows: dict[tuple[Kind, str], list[Any]]
    declared: dict[tuple[str, str], Any]
    spans: list[tuple[str, str | None, datetime, datetime]]
    dirty: set[tuple[Kind, str, datetime]]
    closed: datetime


def device(random_: random.Random, kind: Kind, n: int) -> Iterator[Reading]:
    """Charges, drives, jitters, is silent, and loses its register; or charges all the time."""
    interval = random_.choice([60.0, 60.0, 60.0, 120.0, 900.0])
    sorts = ((0,), (0,), (1,), (1, 2), (0, 1))[n % 5]
    at, rate, counters = START + timedelta(seconds=random_.uniform(0, 60)), 7.0, [1000.0, 50.0]
    is_wild = random_.random() < 0.6
    while at < START + timedelta(hours=HOURS):
        if is_wild and random_.random() < 0.02:
            rate = random_.choice([0.0, 7.0, 11.0, 11.0, -20.0])
        if is_wild and random_.random() < 0.01:
            at += timedelta(minutes=random_.choice([3, 20, 70]))
        energy = round(rate * interval / 3600 * random_.uniform(0.8, 1), random_.choice([3, 12]))
        for k, sign in enumerate((1, -1)):
            counters[k] += max(0.0, sign * energy)
            if is_wild and random_.random() < 0.003:
                counters[k] *= random_.choice([0.0, 0.99, 3.0])
        values = [energy, round(counters[0], 6), round(counters[1], 6)]
        sent = {COLUMNS[kind][k]: values[k] for k in sorts}
        if is_wild and random_.random() < 0.003:
            sent = {COLUMNS[kind][3]: 21.0}
        yield reading(kind, f"{kind.name}_{n}", at, sent)
        at += timedelta(seconds=interval + random_.choice([0, 0, random_.uniform(-2, 2)]))


async def write(database_url: str, readings: Sequence[Reading]) -> None:
    store = PostgresStore(database_url)
    try:
        await store.write(readings)
    finally:
        await store.close()


async def fill(database_url: str, db: Connection, random_: random.Random) -> list[Reading]:
    """Store a random fleet with its assignments; returns readings that come late."""
    late: list[Reading] = []
    for kind, n in itertools.product(KINDS, range(COUNT)):
        own = list(device(random_, kind, n))
        late += [one for one in own if random_.random() < 0.004]
        await write(database_url, [one for one in own if one not in late])
        declared = random_.choice([None, 60.0, 60.0, 120.0, 900.0]), random_.choice([None, None, 8.0])
        await db.execute(
            "INSERT INTO device (kind, id, site, interval_s, rated_kw) VALUES ($1, $2, $3, $4, $5)",
            *(kind.name, f"{kind.name}_{n}", random_.choice(["A", "A", "B"]), *declared),
        )
    for n in range(COUNT):
        times = {
            START - timedelta(days=1),
            *(START + timedelta(minutes=random_.choice([75, 100, 300, 333])) for _ in "ab"),
        }
        for k, at in enumerate(sorted(times)):
            other = random_.choice([*(f"vehicle_{m}" for m in range(COUNT)), None])
            vehicle = f"vehicle_{n}" if k == 0 or random_.random() < 0.5 else other
            await db.execute("INSERT INTO meter_assignment VALUES ($1, $2, $3)", f"meter_{n}", at, vehicle)
    return late


async def fleet_of(db: Connection) -> Fleet:
    rows: dict[tuple[Kind, str], list[Any]] = defaultdict(list)
    dirty: set[tuple[Kind, str, datetime]] = set()
    for kind in KINDS:
        for row in await db.fetch(f"SELECT * FROM {kind.history_table} ORDER BY ts"):
            rows[kind, row[kind.id_column]].append(row)
        dirty |= {(kind, *row) for row in await db.fetch(f"SELECT {kind.id_column}, bucket FROM {kind.dirty_table}")}
    declared = {(row["kind"], row["id"]): row for row in await db.fetch("SELECT * FROM device")}
    assigned = await db.fetch(
        "SELECT meter_id, vehicle_id, valid_from FROM meter_assignment ORDER BY meter_id, valid_from"
    )
    spans = []
    for _, grouped in itertools.groupby(assigned, key=lambda row: row["meter_id"]):
        own = list(grouped)
        ends = [row["valid_from"] for row in own[1:]] + [datetime.max.replace(tzinfo=UTC)]
        spans += [
            (row["meter_id"], row["vehicle_id"], row["valid_from"], end) for row, end in zip(own, ends, strict=True)
        ]
    closed = await db.fetchval("SELECT min(closed_until) FROM quarter_mark")
    return Fleet(rows, declared, spans, dirty, closed)


def units(kwh: float) -> int:
    return int(Decimal(f"{kwh:.15g}") * 10**12)


class Judged(NamedTuple):
    drew: int
    """Energy in of the readings of the quarter hour by themselves."""
    energy: int | None
    """Of the quarter hour; None where it is not complete."""
    is_drawing: bool
    begins: datetime | None = None
    """Of the first interval that has a part in the quarter hour; None where it is not complete."""
    ends: datetime | None = None
    """Of the last one."""


class Window(NamedTuple):
    """A device's readings in a quarter hour, and in those before and after it."""

    kind: Kind
    parts: Sequence[Sequence[Any]]

    @property
    def columns(self) -> list[str]:
        measures = (self.kind.interval, self.kind.register_in, self.kind.register_out)
        return [measure.column for measure in measures if measure is not None]

    @property
    def own(self) -> Sequence[Any]:
        return self.parts[1]

    @property
    def steps(self) -> list[tuple[Any, Any]]:
        return list(itertools.pairwise(self.own))

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        return list(itertools.pairwise([self.parts[0][-1], *self.own, self.parts[2][0]]))

    def has(self, n: int) -> bool:
        return self.own[0][self.columns[n]] is not None

    def is_even(self, rows: Sequence[Any]) -> bool:
        if any(len({row[c] is None for row in rows}) > 1 for c in self.columns):
            return False
        registers = [c for c in self.columns[1:] if rows[0][c] is not None]
        return not any(b[c] < a[c] for a, b in itertools.pairwise(rows) for c in registers)

    def rise(self, a: Any, b: Any) -> int:
        interval, inward, _ = self.columns
        if not self.has(1):
            own: int = round(b[interval] * 1e12)
            return max(0, own)
        return units(b[inward]) - units(a[inward])

    @property
    def drew(self) -> int:
        if not self.has(0) and not self.has(1):
            return 0
        first = 0 if self.has(1) else max(0, round(self.own[0][self.columns[0]] * 1e12))
        return int(first + sum(self.rise(a, b) for a, b in self.steps))

    @property
    def is_drawing(self) -> bool:
        interval, inward, _ = self.columns
        if self.has(0) and any(row[interval] > 0 for row in self.own):
            return True
        return self.has(1) and (len(self.own) == 1 or any(b[inward] > a[inward] for a, b in self.steps))

    @property
    def is_alike(self) -> bool:
        if not all(self.parts) or not all(map(self.is_even, self.parts)):
            return False
        return all((p[0][c] is None) == (self.own[0][c] is None) for p in self.parts for c in self.columns[1:])

    @property
    def goes_out(self) -> bool:
        interval, _, outward = self.columns
        if self.has(2):
            has_sign = not self.has(1)
            rises = any(a[outward] != b[outward] for a, b in self.pairs)
        else:
            has_sign, rises = True, False
        return rises or (has_sign and any((b[interval] or 0) < 0 for _, b in self.pairs))

    def is_covered(self, declared: Any) -> bool:
        if self.has(1):
            most = 1.1 * (declared["rated_kw"] or self.kind.rated_kw)
            slopes = [self.rise(a, b) / 1e12 * (3.6e9 / ((b["ts"] - a["ts"]) // US)) for a, b in self.pairs]
            return all(0 <= slope <= most for slope in slopes)
        if not self.has(0) or self.parts[2][0][self.columns[0]] is None:
            return False
        return all(
            (b["ts"] - a["ts"]) / timedelta(seconds=1) <= 1.5 * (declared["interval_s"] or 60.0) for a, b in self.pairs
        )

    def energy(self, bucket: datetime) -> int:
        def until(at: datetime, a: Any, b: Any) -> int:
            return int(self.rise(a, b) * ((at - a["ts"]) // US) // ((b["ts"] - a["ts"]) // US))

        (first, *_, last), within = self.pairs, sum(self.rise(a, b) for a, b in self.steps)
        return int(self.rise(*first) - until(bucket, *first) + within + until(bucket + QUARTER, *last))


def judge(fleet: Fleet, kind: Kind, id_: str, bucket: datetime) -> Judged | None:
    """What a device's readings say about a quarter hour; None without any."""
    names = [bucket + n * QUARTER for n in (-1, 0, 1)]
    by_quarter: dict[datetime, list[Any]] = defaultdict(list)
    for row in fleet.rows[kind, id_]:
        if names[0] <= row["ts"] < names[2] + QUARTER:
            by_quarter[quarter_of(row["ts"])].append(row)
    window = Window(kind, [by_quarter[name] for name in names])
    if not window.own:
        return None
    if not window.is_even(window.own):
        return Judged(0, None, False)
    is_clean = names[2] < fleet.closed and not any((kind, id_, name) in fleet.dirty for name in names)
    is_complete = is_clean and window.is_alike and window.is_covered(fleet.declared[kind.name, id_])
    if not is_complete or window.goes_out:
        return Judged(window.drew, None, window.is_drawing)
    begins = bucket if window.own[0]["ts"] == bucket else window.parts[0][-1]["ts"]
    return Judged(window.drew, window.energy(bucket), window.is_drawing, begins, window.parts[2][0]["ts"])


def is_only(fleet: Fleet, feeding: Any, judged: Sequence[Judged]) -> bool:
    """Whether an assignment is the only one of its vehicle in the time of all intervals, and lasts as long."""
    begins, ends = (
        min(one.begins for one in judged if one.begins is not None),
        max(one.ends for one in judged if one.ends is not None),
    )
    others = [s for s in fleet.spans if s[1] == feeding[1] and s != feeding and s[2] < ends and s[3] > begins]
    return bool(feeding[2] <= begins and feeding[3] >= ends and not others)


def expected(fleet: Fleet, site: str | None, first: datetime, beyond: datetime) -> dict[str, Any]:
    """The item of the fleet or of a site."""

    def has(kind: Kind, id_: str) -> bool:
        return site is None or fleet.declared[kind.name, id_]["site"] == site

    drawn = ac = dc = quarters = 0
    vehicles = set()
    bucket = first
    while bucket < min(beyond, fleet.closed):
        for n in range(COUNT):
            meter = f"meter_{n}"
            found = judge(fleet, METER, meter, bucket) if has(METER, meter) else None
            if found is None or not found.is_drawing or (METER, meter, bucket) in fleet.dirty:
                continue
            drawn += found.drew if found.energy is None else found.energy
            feeding = [s for s in fleet.spans if s[0] == meter and s[2] <= bucket and s[3] >= bucket + QUARTER]
            if not feeding or feeding[0][1] is None or not found.energy:
                continue
            vehicle = feeding[0][1]
            other = judge(fleet, VEHICLE, vehicle, bucket) if has(VEHICLE, vehicle) else None
            if other is not None and other.energy is not None and is_only(fleet, feeding[0], [found, other]):
                ac, dc, quarters = ac + found.energy, dc + other.energy, quarters + 1
                vehicles.add(vehicle)
        bucket += QUARTER
    return {
        "id": site,
        "chargeKwhAc": ac / 1e12,
        "chargeKwhDc": dc / 1e12,
        "lossKwh": (ac - dc) / 1e12 if ac else None,
        "efficiency": dc / ac if ac else None,
        "kwhAc": drawn / 1e12,
        "compared": ac / drawn if drawn else None,
        "quarters": quarters,
        "vehicles": len(vehicles),
    }


async def compare(db: Connection, client: httpx.AsyncClient, random_: random.Random) -> int:
    """Compare random periods; returns how many quarter hours were compared."""
    fleet, compared = await fleet_of(db), 0
    for _ in range(3):
        first = START + QUARTER * random_.randrange(12)
        beyond = first + QUARTER * random_.randrange(4, 30) + random_.randrange(900) * timedelta(seconds=1)
        period = {"from": (first - timedelta(seconds=random_.randrange(900))).isoformat(), "to": beyond.isoformat()}
        answers = [await client.get(ROUTE, params=period | {"of": of}) for of in ("fleet", "sites")]
        for item in [item for answer in answers for item in answer.raise_for_status().json()["items"]]:
            wanted = expected(fleet, item["id"], first, quarter_of(beyond))
            assert {name: item[name] for name in wanted} == wanted
            compared += item["quarters"]
    return compared


@pytest.mark.parametrize("seed", range(5))
async def test_efficiency_is_that_of_the_model(seed: int, database_url: str, db: Connection, api: Api) -> None:
    random_ = random.Random(seed)
    # The answers of a limited key are not remembered.
    limits = keys.Grant(("read",), devices=("vehicle_*", "meter_*"), sites=("A", "B"))
    token = (await keys.create(db, "all", limits))[1]
    late = await fill(database_url, db, random_)
    await summarize(db)
    async with api.client(token) as client:
        assert await compare(db, client, random_) > 10
        await write(database_url, late)
        await db.execute("UPDATE quarter_mark SET closed_until = $1", START + timedelta(hours=6))
        await compare(db, client, random_)
        await db.execute("UPDATE quarter_mark SET closed_until = marked_until")
        await summarize(db)
        assert await compare(db, client, random_) > 10


async def test_limited_key_gets_its_own_devices(
    database_url: str, db: Connection, client: httpx.AsyncClient, api: Api
) -> None:
    await fill(database_url, db, random.Random(1))
    await summarize(db)
    query = {"from": START.isoformat(), "to": (START + timedelta(hours=HOURS)).isoformat()}
    of_site = (await client.get(ROUTE, params=query | {"of": "sites", "site": "A"})).json()["items"][0]
    token = (await keys.create(db, "A", keys.Grant(("read",), sites=("A",))))[1]
    async with api.client(token) as own:
        seen = (await own.get(ROUTE, params=query)).json()["items"][0]
        assert (await own.get(ROUTE, params=query | {"site": "B"})).status_code == 403
    assert seen | {"id": "A"} == of_site
    answer = await client.get(ROUTE, params=query | {"of": "sites", "site": "A"}, headers={"Accept": "text/csv"})
    assert answer.text.splitlines()[0].startswith("id,from,to,asOf,chargeKwhAc,chargeKwhDc,lossKwh,efficiency")
    assert (await client.get(ROUTE, params={"site": "nowhere"})).status_code == 404


async def test_question_of_several_clients_is_asked_once() -> None:
    asked: list[int] = []
    go = asyncio.Event()

    async def ask() -> int:
        asked.append(1)
        await go.wait()
        if len(asked) == 1:
            raise ValueError("first")
        return len(asked)

    remembered = Remembered()
    waiting = [asyncio.ensure_future(remembered.get("q", ask)) for _ in range(3)]
    await asyncio.sleep(0)
    go.set()
    assert all(isinstance(one, ValueError) for one in await asyncio.gather(*waiting, return_exceptions=True))
    assert [await remembered.get("q", ask) for _ in range(3)] == [2, 2, 2]
