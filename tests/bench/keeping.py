"""F5, F6, F10: floods beside a keeper, floods of late readings, and PostgreSQL's part in a flood."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg

from bridge.store.late_marks import QUARTER, QUARTER_SQL
from local.ports import free_port
from local.service import Service
from tests.bench import writes
from tests.bench.cpu import cpu_of, cpu_of_server
from tests.bench.end_to_end import DEVICES, Run, a_load, flooded, require_once
from tests.bench.fleet import quarter_of, store_minutes
from tests.bench.history import know
from tests.bench.load import Load
from tests.bench.machine import Db, Machine, count_rows
from tests.bench.report import Figure, median_ratio

_ROUNDS = 3
_SLACK = QUARTER / 2
_POLL_S = 0.02
MINUTES = 15
_LATE = """
UPDATE quarter_mark
SET marked_until = $1, closed_until = $1, composed_until = date_trunc('hour', $1::timestamptz, 'UTC')
"""
_MARKED = "SELECT max(marked_until) FROM quarter_mark"
_CLOSED = "SELECT min(closed_until) FROM quarter_mark"
_DIRTY = "SELECT (SELECT count(*) FROM vehicle_quarter_dirty) + (SELECT count(*) FROM meter_quarter_dirty)"

_UNMARKED = f"""
SELECT count(*) FROM (SELECT DISTINCT meter_id, {QUARTER_SQL} FROM meter_telemetry_history
                      EXCEPT SELECT meter_id, bucket FROM meter_quarter_dirty) AS unmarked
"""


class Waiting:
    """Quarter hours before a flood that are stored and not summarized: about as many readings as the flood has.

    So a keeper that begins with the flood does the work that the same number of readings makes in the long run.
    """

    def __init__(self, readings: int, most_devices: int, first: datetime) -> None:
        """At most so many devices have a reading in each minute of the quarter hours that end before `first`."""
        quarters = -(-readings // (most_devices * MINUTES))
        self.devices = readings // (quarters * MINUTES) // 2 * 2
        self.until = quarter_of(first)
        self.since = self.until - quarters * QUARTER

    @property
    def readings(self) -> int:
        return self.devices * int((self.until - self.since) / timedelta(minutes=1))

    async def store(self, url: str) -> None:
        """Store them in a new database, in which all earlier quarter hours are closed."""
        await store_minutes(url, self.devices, self.since, self.until)
        async with _connected(url) as db:
            await know(db, self.devices)
            await db.execute(_LATE, self.since)


def delay_s(end: datetime) -> float:
    """A keeper's delay with which it closes the quarter hours up to `end`, and no more, during the next minutes."""
    return (datetime.now(UTC) - end - _SLACK).total_seconds()


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Db]:
    db: Db = await asyncpg.connect(url)
    try:
        yield db
    finally:
        await db.close()


@contextlib.asynccontextmanager
async def _keeper(machine: Machine, url: str, until_: datetime | None) -> AsyncIterator[None]:
    """`python -m bridge keep`, which has begun to summarize the quarter hours up to `until_`, and only these; None for
    a keeper with its own delay.
    """
    port = free_port()
    env = {
        "FLEET_DATABASE_URL": machine.as_login(url, "bridge"),
        "FLEET_KEEPER_HTTP_PORT": str(port),
        **({"FLEET_QUARTERS_DELAY_S": str(delay_s(until_))} if until_ else {}),
    }
    keeper = Service("keeper", ["bridge", "keep"], machine.directory / f"keeper{port}.log", env, port)
    keeper.start()
    try:
        if until_:
            await _reached(url, _MARKED, until_)
        yield
    finally:
        keeper.stop()


async def f5(machine: Machine) -> list[Figure]:
    """T1, T3 and T2 while a keeper summarizes as many readings, compared with the same without a keeper."""
    load = a_load(machine)
    floods = [
        (await _beside(machine, load, kept=True), await _beside(machine, load, kept=False)) for _ in range(_ROUNDS)
    ]
    stored = [(await _writing(machine, kept=True), await _writing(machine, kept=False)) for _ in range(_ROUNDS)]
    rates = [(kept.rate, alone.rate) for kept, alone in floods]
    costs = [(alone.cpu_us, kept.cpu_us) for kept, alone in floods]
    ceiling = f"{await machine.ceiling():,.0f}/s"
    return [
        _against("F5 T1", "end to end, with a keeper : without", rates, "/s", ceiling),
        _against("F5 T2", "store.write, with a keeper : without", stored, "/s", "ready-made"),
        _against("F5 T3", "bridge CPU a reading, without a keeper : with", costs, " us", ceiling),
    ]


def _against(key: str, measure: str, pairs: list[tuple[float, float]], unit: str, ceiling: str) -> Figure:
    ratio, rounds = median_ratio(pairs)
    first, second = (f"{value:,.1f}{unit}" for value in pairs[-1])
    return Figure(key, measure, ratio, 0.95, 1.0, ceiling=ceiling, detail=f"{first} : {second}; {rounds}")


async def _beside(machine: Machine, load: Load, *, kept: bool) -> Run:
    """A flood of fresh readings after quarter hours that wait, with or without the keeper that summarizes them."""
    waiting = Waiting(load.readings, load.devices, load.first_at)
    with machine.database() as url:
        await waiting.store(url)
        machine.postgres.sql("CHECKPOINT")
        with machine.broker() as broker, machine.bridge(url, broker) as bridge:
            async with _keeper(machine, url, waiting.until) if kept else contextlib.nullcontext():
                run = await flooded(broker, [bridge], load)
                await _check(url, waiting, load.readings, kept=kept)
        return run


async def _check(url: str, waiting: Waiting, fresh: int, *, kept: bool) -> None:
    """Everything is stored, no reading of the flood was late, and the keeper is done with the others."""
    if await count_rows(url) != waiting.readings + fresh:
        raise RuntimeError("readings are missing from the history, or are stored twice")
    async with _connected(url) as db:
        closed, dirty = await db.fetchval(_CLOSED), await db.fetchval(_DIRTY)
    if dirty or closed != (waiting.until if kept else waiting.since):
        raise RuntimeError(f"summarized until {closed} instead of {waiting.until}, {dirty} marks")


async def _writing(machine: Machine, *, kept: bool) -> float:
    """T2's rate of `store.write` after quarter hours that wait."""
    waiting = Waiting(writes.READINGS, DEVICES, writes.first_minute())
    with machine.database() as url:
        await waiting.store(url)
        machine.postgres.sql("CHECKPOINT")
        async with _keeper(machine, url, waiting.until) if kept else contextlib.nullcontext():
            rate = await writes.store_rate_into(machine.as_login(url, "bridge"))
            if kept:
                await _reached(url, _CLOSED, waiting.until)
        return rate


async def _reached(url: str, sql: str, instant: datetime) -> None:
    """Wait until the keeper has moved a mark this far."""
    async with _connected(url) as db:
        while await db.fetchval(sql) < instant:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(_POLL_S)


async def f6(machine: Machine) -> list[Figure]:
    """A flood in which every reading is late, without a keeper and with one, compared with a fresh one without."""
    load = a_load(machine)
    runs = [
        (await _late(machine, load, kept=False), await _late(machine, load, kept=True), await _fresh(machine, load))
        for _ in range(_ROUNDS)
    ]
    ceiling = f"{await machine.ceiling():,.0f}/s"
    found: list[Figure] = []
    for key, n, by in (("F6", 0, "without a keeper"), ("F6 kept", 1, "with a keeper that cleans the marks")):
        ratio, rounds = median_ratio([(run[n].rate, run[2].rate) for run in runs])
        late, fresh = runs[-1][n], runs[-1][2]
        detail = f"{late.rate:,.0f}/s : {fresh.rate:,.0f}/s; {rounds}; bridge {late.cpu_us:.1f} : {fresh.cpu_us:.1f} us"
        found.append(Figure(key, f"late : fresh readings, {by}", ratio, 0.6, 0.85, ceiling=ceiling, detail=detail))
    return found


async def _late(machine: Machine, load: Load, *, kept: bool) -> Run:
    """Every quarter hour up to the flood's end is closed before it begins."""
    with machine.database() as url:
        async with _connected(url) as db:
            await db.execute(_LATE, quarter_of(load.now) + QUARTER)
        run = await _flooded(machine, url, load, kept=kept)
        async with _connected(url) as db:
            if not kept and await db.fetchval(_UNMARKED):
                raise RuntimeError("a late reading has no mark")
        return run


async def _fresh(machine: Machine, load: Load) -> Run:
    with machine.database() as url:
        return await _flooded(machine, url, load, kept=False)


async def _flooded(machine: Machine, url: str, load: Load, *, kept: bool) -> Run:
    """A flood of known devices, with or without a keeper with its own delay; every reading must be stored once."""
    async with _connected(url) as db:
        await know(db, load.devices)
    with machine.broker() as broker, machine.bridge(url, broker) as bridge:
        async with _keeper(machine, url, None) if kept else contextlib.nullcontext():
            run = await flooded(broker, [bridge], load)
    await require_once(url, load)
    return run


async def f10(machine: Machine) -> list[Figure]:
    """PostgreSQL's CPU for a reading of T1, of all its processes, compared with the bridge's."""
    load, rounds = a_load(machine), _ROUNDS
    found = sorted([await _cpu(machine, load) for _ in range(rounds)])
    whole, session, bridge = found[rounds // 2]
    each = " ".join(f"{us:.1f}" for us, *_ in found)
    detail = f"of these {session:.1f} us in the bridge's session; the bridge {bridge:.1f} us; rounds {each}"
    return [
        Figure("F10", "PostgreSQL CPU a reading during T1", whole, None, None, True, " us", detail=detail),
        Figure("F10 ratio", "the same : bridge CPU a reading", whole / bridge, None, None, True, detail=detail),
    ]


async def _cpu(machine: Machine, load: Load) -> tuple[float, float, float]:
    """Microseconds a reading: of the whole server, of the bridge's session, of the bridge."""
    with machine.database() as url, machine.broker() as broker, machine.bridge(url, broker) as bridge:
        sessions = await _sessions(url)
        server_s, session_s = cpu_of_server(machine.postgres.process.pid), _sum(sessions)
        run = await flooded(broker, [bridge], load)
        if not sessions or sessions != await _sessions(url):
            raise RuntimeError("the bridge has not had the same session throughout")
        server_s, session_s = cpu_of_server(machine.postgres.process.pid) - server_s, _sum(sessions) - session_s
        return server_s / load.readings * 1e6, session_s / load.readings * 1e6, run.cpu_us


def _sum(pids: list[int]) -> float:
    return sum(cpu_of(pid) for pid in pids)


async def _sessions(url: str) -> list[int]:
    """The server's processes for the bridge."""
    async with _connected(url) as db:
        rows = await db.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'bridge' ORDER BY pid"
        )
    return [row[0] for row in rows]
