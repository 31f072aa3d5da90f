"""The summaries of quarter hours: what they contain, and that none that may be used lacks a reading."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.contract import KINDS, METER, VEHICLE, Kind, Measure
from bridge.delivery import Kept
from bridge.keeper import quarters as keeper_quarters
from bridge.keeper.quarters import Quarters
from bridge.keeper.writers import Writers
from bridge.reading import Reading, device_id, reading
from bridge.store.late_marks import LateMarks
from bridge.store.postgres import FEW, PostgresStore
from bridge.store.tables import TABLE_OF, Table
from tests.quarters import (
    MICROSECOND,
    QUARTER,
    SIX_HOURS,
    assert_hours_right,
    assert_right,
    closed_until,
    hour_of,
    quarter_of,
    six_hours_of,
    stored,
)
from tests.readings import meter, vehicle

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
BEGIN = quarter_of(datetime.now(UTC)) - timedelta(hours=3)
"""Long over; the time at which a test looks is after the quarter hours that it fills."""
HOUR_BEGIN = six_hours_of(datetime.now(UTC)) - 2 * SIX_HOURS
_numbers = itertools.count(1)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database_url)
    yield store
    await store.close()


async def keep(db: Db, quarters: Quarters | None = None) -> None:
    """Run the duty until there is nothing more to do."""
    quarters = quarters or Quarters(0.001, 5.0)
    while await quarters.run(db):
        pass


async def marks(db: Db, kind: Kind) -> list[tuple[str, datetime]]:
    rows = await db.fetch(f"SELECT {kind.id_column}, bucket FROM {kind.dirty_table} ORDER BY 1, 2")
    return [(row[0], row[1]) for row in rows]


# -- What a summary contains


@pytest.fixture
def closing(database_url: str) -> Iterator[tuple[asyncio.AbstractEventLoop, Db, PostgresStore]]:
    """For a test that is no coroutine: a loop of its own, a connection for the keeper, a store."""
    loop, store = asyncio.new_event_loop(), PostgresStore(database_url)
    db = loop.run_until_complete(asyncpg.connect(database_url))
    yield loop, db, store
    loop.run_until_complete(store.close())
    loop.run_until_complete(db.close())
    loop.close()


def _values(least: float, most: float) -> st.SearchStrategy[float]:
    """Values of a measure: any, few, and those at its limits."""
    return st.floats(least, most) | st.sampled_from([least, most, 0.0, 1.0]) | st.integers(0, 5).map(float)


@st.composite
def _of_a_device(draw: st.DrawFn, kind: Kind) -> list[tuple[datetime, dict[str, float]]]:
    """Times and values in two quarter hours: any measures or all the same ones, minutes or microseconds apart."""
    values = {m.column: _values(m.least, m.most) for m in kind.measures}
    measured: st.SearchStrategy[dict[str, float]] = st.fixed_dictionaries({}, optional=values).filter(bool)
    if draw(st.booleans()):
        names = draw(st.sets(st.sampled_from(sorted(values)), min_size=1))
        measured = st.fixed_dictionaries({name: values[name] for name in names})
    instants = (
        st.integers(0, 2 * 900 * 10**6 - 1) | st.integers(0, 29).map(lambda n: n * 60 * 10**6) | st.integers(0, 9)
    )
    return [(BEGIN + us * MICROSECOND, draw(measured)) for us in draw(st.sets(instants, max_size=30))]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(vehicles=_of_a_device(VEHICLE), meters=_of_a_device(METER), are_late=st.booleans())
def test_summary_is_what_python_makes_of_the_rows(
    closing: tuple[asyncio.AbstractEventLoop, Db, PostgresStore],
    vehicles: list[tuple[datetime, dict[str, float]]],
    meters: list[tuple[datetime, dict[str, float]]],
    are_late: bool,
) -> None:
    """Of quarter hours that are closed, and of those that are made again for late readings."""
    loop, db, store = closing
    device = device_id(f"D{next(_numbers)}")
    made = [reading(kind, device, *own) for kind, of in ((VEHICLE, vehicles), (METER, meters)) for own in of]

    async def compare() -> int:
        await db.execute("UPDATE quarter_mark SET closed_until = '-infinity', marked_until = '-infinity'")
        if are_late:
            await keep(db)
        await store.write(made)
        await keep(db)
        return await assert_right(db, device)

    quarters = {(r.kind, quarter_of(r.timestamp)) for r in made}
    assert loop.run_until_complete(compare()) == len(quarters)


# -- What an hour is composed of


@st.composite
def _steady_device(draw: st.DrawFn, kind: Kind) -> list[tuple[datetime, dict[str, float]]]:
    """Times in some quarter hours of twelve hours, with the same measures, and registers that seldom fall."""
    own = [kind.interval, kind.register_in, kind.register_out]
    names = draw(st.sets(st.sampled_from([m.column for m in own if m]), min_size=1))
    instants: set[int] = set()
    for quarter in draw(st.sets(st.sampled_from([0, 1, 2, 3, 4, 7, 8, 22, 23, 24, 26, 47]), max_size=6)):
        seconds = draw(st.sets(st.integers(0, 899) | st.sampled_from([0, 1, 899]), min_size=1, max_size=4))
        instants |= {(quarter * 900 + second) * 10**6 + draw(st.integers(0, 1)) for second in seconds}
    made, counters = [], dict.fromkeys(names, 1000.0)
    for us in sorted(instants):
        energy = draw(st.sampled_from([0.0, 0.1, -0.3, 7.7]))
        counters = {
            name: value + draw(st.sampled_from([0.0, 0.1, 3.3, 0.1, 0.0, 0.7, -0.1]))
            for name, value in counters.items()
        }
        assert kind.interval is not None
        made.append(
            (
                HOUR_BEGIN + us * MICROSECOND,
                counters | ({kind.interval.column: energy} if kind.interval.column in names else {}),
            )
        )
    return made


def test_hour_is_what_python_makes_of_the_rows(closing: tuple[asyncio.AbstractEventLoop, Db, PostgresStore]) -> None:
    """Of hours that are composed, and of those that are composed again for late readings."""
    loop, db, store = closing
    composed = dict.fromkeys(itertools.product((True, False), repeat=2), 0)

    async def compare(device: str, made: Sequence[Reading], late: int) -> int:
        await db.execute("TRUNCATE vehicle_live_status, meter_live_status")  # others are not summarized again
        await db.execute("UPDATE quarter_mark SET closed_until = $1, marked_until = $1", HOUR_BEGIN)
        await store.write(made[late:])
        await keep(db)
        await store.write(made[:late])
        await keep(db)
        for kind in KINDS:
            for table in (kind.hour_table, kind.six_hour_table):
                rows = await db.fetch(f"SELECT is_even FROM {table} WHERE {kind.id_column} = $1", device)
                for row in rows:
                    composed[table.endswith("six_hour"), row["is_even"]] += 1
        return await assert_hours_right(db, device) + await assert_hours_right(db, device, SIX_HOURS)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(vehicles=_steady_device(VEHICLE), meters=_steady_device(METER), late=st.integers(0, 3))
    def check(
        vehicles: list[tuple[datetime, dict[str, float]]], meters: list[tuple[datetime, dict[str, float]]], late: int
    ) -> None:
        device = device_id(f"H{next(_numbers)}")
        made = [reading(kind, device, *own) for kind, of in ((VEHICLE, vehicles), (METER, meters)) for own in of]
        hours = {(r.kind, begin_of(r.timestamp), begin_of) for r in made for begin_of in (hour_of, six_hours_of)}
        assert loop.run_until_complete(compare(device, made, late)) == len(hours)

    check()
    assert min(composed.values()) > 20


async def test_hours_of_earlier_quarter_hours_are_composed(db: Db, store: PostgresStore) -> None:
    """As after the migrations that introduced them, also where the keeper ends between two transactions."""
    at = [HOUR_BEGIN + n * timedelta(minutes=5) for n in range(24)]
    await store.write([_fresh(kind, f"D{n}", t) for kind in KINDS for n in range(3) for t in at])
    await keep(db)
    for kind in KINDS:
        await db.execute(f"UPDATE {kind.hour_table} SET readings = 0")
        await db.execute(f"UPDATE {kind.six_hour_table} SET readings = 0")
    await db.execute("UPDATE quarter_mark SET composed_until = '-infinity'")
    assert await assert_hours_right(db) == await assert_hours_right(db, length=SIX_HOURS) == 0
    await keep(db)
    assert await assert_hours_right(db) == 2 * 3 * 2
    assert await assert_hours_right(db, length=SIX_HOURS) == 2 * 3
    for kind in KINDS:
        await db.execute(f"UPDATE {kind.six_hour_table} SET readings = 0")
    await db.execute("UPDATE quarter_mark SET six_hours_until = '-infinity'")
    await keep(db)
    assert await assert_hours_right(db, length=SIX_HOURS) == 2 * 3


async def test_hours_of_days_that_were_dropped_are_composed(db: Db, store: PostgresStore) -> None:
    """A missing hour means that there is no quarter hour, so the first one may be older than the history."""
    dropped = HOUR_BEGIN - timedelta(days=2)
    await store.write([vehicle("EV_1", t) for t in (dropped, dropped + timedelta(minutes=20), HOUR_BEGIN)])
    await keep(db)
    await db.execute("UPDATE vehicle_hour SET readings = 0")
    await db.execute(
        f"ALTER TABLE vehicle_telemetry_history DETACH PARTITION vehicle_telemetry_history_{dropped:%Y%m%d}"
    )
    await db.execute("UPDATE quarter_mark SET composed_until = '-infinity'")
    await keep(db)
    hours = await db.fetch("SELECT bucket, readings FROM vehicle_hour ORDER BY 1")
    assert [tuple(row) for row in hours] == [(dropped, 2), (HOUR_BEGIN, 1)]


@pytest.mark.parametrize("kwh", [1000.0, -1000.0])
async def test_sum_beyond_eight_bytes_and_the_steepest_rise_do_not_fail(
    db: Db, store: PostgresStore, kwh: float
) -> None:
    """The contract's limits at 20 Hz: the sum is beyond the type, so the rows must be read."""
    at = [BEGIN + n * timedelta(milliseconds=50) for n in range(18_000)]
    registers = {m.column: m.most for m in VEHICLE.of_sort("register")}
    fast = [reading(VEHICLE, device_id("FAST"), t, {"kwh_delivered_dc": kwh}) for t in at]
    steep = [
        reading(VEHICLE, device_id("STEEP"), BEGIN, dict.fromkeys(registers, 0.0)),
        reading(VEHICLE, device_id("STEEP"), BEGIN + MICROSECOND, registers),
    ]
    for n in range(0, len(fast), 5_000):
        await store.write(fast[n : n + 5_000])
    await store.write(steep)
    await keep(db)
    assert await assert_right(db) == 2
    summaries = await stored(db, VEHICLE)
    assert not summaries["FAST", BEGIN]["is_even"]
    assert summaries["STEEP", BEGIN]["steepest_kw"] == 3.6e18


async def test_quarter_hour_is_summarized_once_it_is_over(db: Db, store: PostgresStore) -> None:
    now: datetime = await db.fetchval("SELECT now()")
    begin = quarter_of(now)
    await store.write([vehicle("EV_1", at) for at in (begin - 2 * QUARTER, begin - MICROSECOND, begin, now)])
    await keep(db, Quarters(1e9, 5.0))
    assert await stored(db, VEHICLE) == {}
    await keep(db)
    assert {bucket for _, bucket in await stored(db, VEHICLE)} >= {begin - 2 * QUARTER, begin - QUARTER}
    assert await assert_right(db) >= 2
    closed = await closed_until(db, VEHICLE)
    assert closed <= quarter_of(await db.fetchval("SELECT now()"))


# -- Late readings


def _fresh(kind: Kind, name: str, at: datetime) -> Reading:
    return vehicle(name, at) if kind is VEHICLE else meter(name, at)


@pytest.mark.parametrize("source", ["mqtt", "http"])
@pytest.mark.parametrize("count", [3, FEW + 1], ids=["few", "COPY"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_late_readings_are_marked_and_then_summarized(
    database_url: str, db: Db, kind: Kind, count: int, source: str
) -> None:
    store, soon = PostgresStore(database_url, source=source), datetime.now(UTC) + timedelta(minutes=1)
    await store.write([_fresh(kind, f"D{n}", BEGIN) for n in range(count)])
    assert await marks(db, kind) == [], "nothing is closed yet"
    await keep(db)
    in_time = [_fresh(kind, f"D{n}", soon) for n in range(count)]
    late = [_fresh(kind, f"D{n}", BEGIN + timedelta(minutes=5 + minute)) for n in range(2) for minute in range(20)]
    assert await store.write(in_time) == [Kept.STORED] * count
    assert await marks(db, kind) == [], "they were in time"
    batch = in_time[: count // 2] + late + [_fresh(kind, f"E{n}", soon) for n in range(count)]
    assert await store.write(batch) == [Kept.DUPLICATE] * (count // 2) + [Kept.STORED] * (len(late) + count)
    assert await marks(db, kind) == [(f"D{n}", BEGIN + i * QUARTER) for n in range(2) for i in range(2)]
    await assert_right(db)
    await keep(db)
    assert await marks(db, kind) == []
    summaries = await stored(db, kind)
    assert [summaries[f"D{n}", BEGIN + i * QUARTER]["readings"] for n in range(2) for i in range(2)] == [11, 10] * 2
    await assert_right(db)
    assert await store.write(late) == [Kept.DUPLICATE] * len(late)
    await keep(db)
    await assert_right(db)
    await store.close()


@pytest.mark.parametrize("count", [1, FEW + 1], ids=["few", "COPY"])
@pytest.mark.parametrize("days", [1, 40])
async def test_late_reading_before_the_first_partition_or_in_a_month_without_one(
    db: Db, store: PostgresStore, count: int, days: int
) -> None:
    await store.write([vehicle("EV_1", BEGIN)])
    await keep(db)
    await store.write([vehicle(f"EV_{n}", BEGIN - timedelta(days=days)) for n in range(count)])
    assert len(await marks(db, VEHICLE)) == count
    await keep(db)
    assert await assert_right(db) == count + 1


async def test_reading_that_is_refused_leaves_no_mark(db: Db, store: PostgresStore) -> None:
    """A conflict: the first stays, so the summary is right."""
    await store.write([vehicle("EV_1", BEGIN)])
    await keep(db)
    await store.write([vehicle("EV_1", BEGIN, soc=1.0)])
    assert await marks(db, VEHICLE) == []


# -- The race between a writer and the keeper


class _Writer:
    """A transaction of the store, statement by statement, that stores one reading of BEGIN."""

    def __init__(self, db: Db, device: str, late_marks: LateMarks) -> None:
        self._db, self._device, self._late_marks = db, device, late_marks
        self._transaction = db.transaction()

    async def insert(self) -> None:
        await self._transaction.start()
        at = BEGIN + timedelta(minutes=1)
        sql = "INSERT INTO vehicle_telemetry_history (vehicle_id, ts, soc) VALUES ($1, $2, 1)"
        await self._db.execute(sql, self._device, at)
        sql = "INSERT INTO vehicle_live_status (vehicle_id, ts, received_at) VALUES ($1, $2, now())"
        sql += " ON CONFLICT DO NOTHING"
        await self._db.execute(sql, self._device, at)

    async def mark(self) -> None:
        staged = f"(SELECT '{self._device}' AS vehicle_id, '{BEGIN.isoformat()}'::timestamptz AS ts)"
        await self._db.execute(self._late_marks.sql(TABLE_OF[VEHICLE], staged, (), rounds=False))

    async def commit(self) -> None:
        await self._transaction.commit()


class _MarksOnce(LateMarks):
    """With a bug: a mark that is there already is not added again."""

    def sql(self, table: Table, staged: str, measures: Sequence[Measure], *, rounds: bool) -> str:
        return f"{super().sql(table, staged, measures, rounds=rounds)} ON CONFLICT DO NOTHING"


async def _waits_for_no_writer(*_: object) -> bool:
    return True


def _orders(keeper: str) -> list[str]:
    """All orders of the writer's three statements with the keeper's."""
    return sorted(
        {"".join(order) for order in itertools.permutations("imc" + keeper) if _in_order(order, "imc", keeper)}
    )


def _in_order(order: Sequence[str], *sequences: str) -> bool:
    return all("".join(step for step in order if step in sequence) == sequence for sequence in sequences)


async def _run_in_order(database_url: str, db: Db, order: str, late_marks: LateMarks) -> None:
    """The steps: writer's `i`nsert, `m`ark and `c`ommit; keeper's `A`head with the mark, `S`ummarize, `C`lean."""
    quarters, writing = Quarters(0.001, 60.0), await asyncpg.connect(database_url)
    writer = _Writer(writing, "EV_1", late_marks)
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "i": writer.insert,
        "m": writer.mark,
        "c": writer.commit,
        "A": lambda: db.execute(keeper_quarters._MARK, VEHICLE.name, BEGIN + QUARTER),
        "S": lambda: quarters._close(db, VEHICLE),
        "C": lambda: quarters._clean(db, VEHICLE),
    }
    try:
        for step in order:
            await steps[step]()
        await assert_right(db)
        await keep(db, quarters)
    finally:
        await writing.close()
    assert await assert_right(db) == 1
    (summary,) = (await stored(db, VEHICLE)).values()
    assert summary["readings"] == await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history")


@pytest.mark.parametrize("order", _orders("AS"))
async def test_reading_is_summarized_or_marked_in_each_order_of_writer_and_keeper(
    database_url: str, db: Db, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper does not close what an open transaction may have written to without a mark."""
    monkeypatch.setattr("bridge.keeper.writers._PATIENCE_S", 0.0)
    await _closed_until_begin(db)
    await _run_in_order(database_url, db, order, LateMarks())


@pytest.mark.parametrize("order", _orders("C"))
async def test_late_reading_is_summarized_or_marked_in_each_order_of_writer_and_cleaning(
    database_url: str, db: Db, store: PostgresStore, order: str
) -> None:
    """Its quarter hour has a mark of an earlier reading, which the keeper deletes."""
    await _with_a_mark(db, store)
    await _run_in_order(database_url, db, order, LateMarks())


async def _closed_until_begin(db: Db) -> None:
    await db.execute("SELECT ensure_partition('vehicle_telemetry_history', $1)", BEGIN.date())
    await db.execute("UPDATE quarter_mark SET marked_until = $1, closed_until = $1", BEGIN)


async def _with_a_mark(db: Db, store: PostgresStore) -> None:
    await store.write([vehicle("EV_1", BEGIN)])
    await keep(db)
    await store.write([vehicle("EV_1", BEGIN + MICROSECOND)])
    assert await marks(db, VEHICLE) == [("EV_1", BEGIN)]


async def test_writer_sees_the_mark_in_a_database_of_another_isolation(db: Db, store: PostgresStore) -> None:
    """With `repeatable read` a call that began before the mark was moved would not see it."""
    await db.execute(
        f"ALTER DATABASE {await db.fetchval('SELECT current_database()')} "
        "SET default_transaction_isolation = 'repeatable read'"
    )
    await store.connect()
    assert store._connection is not None
    assert await store._connection.fetchval("SHOW transaction_isolation") == "read committed"


async def test_keeper_that_does_not_wait_for_writers_would_be_caught(
    database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writers, "ended", _waits_for_no_writer)
    await _closed_until_begin(db)
    with pytest.raises(AssertionError):
        await _run_in_order(database_url, db, "imASc", LateMarks())


async def test_mark_that_is_not_added_twice_would_be_caught(database_url: str, db: Db, store: PostgresStore) -> None:
    await _with_a_mark(db, store)
    await db.execute("CREATE UNIQUE INDEX ON vehicle_quarter_dirty (vehicle_id, bucket)")
    with pytest.raises(AssertionError):
        await _run_in_order(database_url, db, "imCc", _MarksOnce())


class _Fleet:
    """Writers with sessions of their own. The present is the keeper's: its delay becomes shorter, step by step."""

    def __init__(self, database_url: str, quarters: Quarters) -> None:
        self._url, self._quarters = database_url, quarters
        self._is_over = False

    async def write(self, seed: int) -> int:
        """Write readings of the last minutes, some of them late, until it is over; returns how many were stored."""
        chance, store, stored = random.Random(seed), PostgresStore(self._url, source=f"http{seed}"), 0
        await store.connect()
        connection = store._connection
        assert connection is not None
        while not self._is_over:
            now = datetime.now(UTC) - self._quarters._delay
            count = chance.choice([1, 3, FEW + 1])
            at = [now + timedelta(seconds=chance.uniform(-2400, 60)) for _ in range(count)]
            batch = [_fresh(chance.choice(KINDS), f"D{chance.randrange(20)}", t) for t in at]
            async with connection.transaction():  # open for longer than the store's own
                stored += (await store.write(batch)).count(Kept.STORED)
                await asyncio.sleep(chance.choice([0, 0.01]))
        await store.close()
        return stored

    async def keep(self, db: Db, count: int) -> int:
        """Let so many quarter hours pass, closing and cleaning them; returns how many clean summaries were right."""
        right = 0
        try:
            for n in range(count):
                self._quarters._delay = timedelta(minutes=15 * (count - n))
                while await self._quarters.run(db):
                    right += await assert_right(db)
        finally:
            self._is_over = True
        return right


async def _stress(database_url: str, db: Db, count: int = 40) -> None:
    quarters = Quarters(900.0 * (count + 1), 60.0)
    fleet = _Fleet(database_url, quarters)
    writers = [asyncio.create_task(fleet.write(seed)) for seed in range(3)]
    try:
        await fleet.keep(db, count)
    finally:
        written = await asyncio.gather(*writers)
    await keep(db, quarters)
    assert await assert_right(db) > 0
    assert [await marks(db, kind) for kind in KINDS] == [[], []]
    assert min(written) > 0


async def test_no_reading_is_missed_while_several_write(database_url: str, db: Db) -> None:
    """With a clock that runs fast: each round closes the next quarter hour, amid readings in time and late ones."""
    await _stress(database_url, db)


async def test_stress_catches_a_keeper_that_does_not_wait(
    database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writers, "ended", _waits_for_no_writer)
    with pytest.raises(AssertionError):
        await _stress(database_url, db, 200)
