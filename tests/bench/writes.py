"""T2, T11: the store's transaction compared with binary COPY, and the size of a reading on disk and in the WAL."""

import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

import asyncpg

from bridge.contract import VEHICLE
from bridge.reading import Reading
from bridge.store.postgres import PostgresStore
from bridge.store.tables import Row
from tests.bench.load import HISTORY_COLUMNS, history_rows, vehicle_minutes
from tests.bench.machine import Db, Machine
from tests.bench.report import Figure, median_ratio

T = TypeVar("T")
_BATCH = 5_000
_DEVICES = 10_000
_MINUTES = 20
READINGS = _DEVICES * _MINUTES
_T11_MINUTES = 100


@cache
def _batches() -> list[list[Reading]]:
    """Prepared readings of 10,000 vehicles, in every minute in the same random order, as those of a fleet arrive."""
    order = list(range(_DEVICES))
    random.Random(4).shuffle(order)
    readings = vehicle_minutes(_DEVICES, _MINUTES, order)
    return [readings[n : n + _BATCH] for n in range(0, len(readings), _BATCH)]


@cache
def _copies() -> list[list[Row]]:
    """The same batches as prepared tuples in the order of the key, which is optimal for COPY."""
    received_at = datetime.now(UTC)
    copies = [history_rows(batch, received_at) for batch in _batches()]
    gc.collect()
    gc.freeze()  # a million prepared objects must not be scanned by the garbage collector
    return copies


async def copy_rate(machine: Machine) -> float:
    """Rows/s of binary COPY into the partitioned table with its covering key: one transaction a batch, nothing else."""
    copies = _copies()
    with machine.database() as url:
        db = await _prepared(url)
        try:
            return await _rate(
                copies,
                lambda rows: db.copy_records_to_table(VEHICLE.history_table, records=rows, columns=HISTORY_COLUMNS),
            )
        finally:
            await db.close()


async def store_rate(machine: Machine) -> float:
    """Readings/s of the store's own transaction: history, live rows and all that makes it idempotent."""
    _copies()
    with machine.database() as url:
        return await store_rate_into(url)


async def store_rate_into(url: str) -> float:
    """The same into a database that is there."""
    await (await _prepared(url)).close()
    store = PostgresStore(url)
    await store.write([])  # connects
    try:
        return await _rate(_batches(), store.write)
    finally:
        await store.close()


def first_minute() -> datetime:
    """The time of the first reading that is written."""
    first: datetime = _batches()[0][0][1]
    return first


async def _prepared(url: str) -> Db:
    """A connection to the database, which has the partitions of the batches, as a keeper would have created them."""
    db: Db = await asyncpg.connect(url)
    for day in {batch[n][1].date() for batch in _copies() for n in (0, -1)}:
        await db.execute("SELECT ensure_partition($1::text::regclass, $2)", VEHICLE.history_table, day)
    return db


async def _rate(batches: list[list[T]], write: Callable[[list[T]], Awaitable[object]]) -> float:
    began = time.perf_counter()
    for batch in batches:
        await write(batch)
    return sum(map(len, batches)) / (time.perf_counter() - began)


async def t2(machine: Machine) -> list[Figure]:
    """store.write compared with COPY, alternating."""
    runs = [(await store_rate(machine), await copy_rate(machine)) for _ in range(5)]
    ratio, rounds = median_ratio(runs)
    stored, copied = runs[-1]
    made_of = f"{stored:,.0f}/s : {copied:,.0f}/s; {rounds}"
    return [Figure("T2", "store.write : COPY", ratio, 0.45, 0.7, ceiling="ready-made", detail=made_of)]


async def t11(machine: Machine) -> list[Figure]:
    """Bytes on disk and in the WAL, compared with the minimum size of the rows.

    The key's leaves are split when they are full, and a fleet fills them at the same time, so its size varies while the
    history grows: the result is the mean while it doubles.
    """
    order = list(range(_DEVICES))
    random.Random(11).shuffle(order)
    readings = vehicle_minutes(_DEVICES, _T11_MINUTES, order)
    floor = sum(floor_bytes(len(readings[0].vehicle_id)))
    swing: list[float] = []
    with machine.database() as url:
        store = PostgresStore(url)
        db: Db = await asyncpg.connect(url)
        try:
            await store.write([])
            before: int = await db.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'")
            for end in range(_BATCH, len(readings) + 1, _BATCH):
                await store.write(readings[end - _BATCH : end])
                if end >= len(readings) / 2:
                    swing.append(await _disk_bytes(db) / end / floor)
            wal: int = await db.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'") - before
        finally:
            await store.close()
            await db.close()
    on_disk, wal_each = statistics.fmean(swing), float(wal) / len(readings)
    made_of = f"{on_disk * floor:.0f} : {floor}; {min(swing):.2f} to {max(swing):.2f}"
    return [
        Figure("T11 disk", "bytes on disk : floor", on_disk, 1.2, 1.1, True, ceiling="ready-made", detail=made_of),
        Figure(
            "T11 WAL",
            "bytes of WAL : floor",
            wal_each / floor,
            3,
            1.5,
            True,
            ceiling="ready-made",
            detail=f"{wal_each:.0f} : {floor}",
        ),
    ]


async def _disk_bytes(db: Db) -> float:
    """All of the vehicles' partitions, with their keys and maps."""
    return float(
        await db.fetchval(
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = $1::text::regclass",
            VEHICLE.history_table,
        )
    )


def floor_bytes(id_length: int) -> tuple[int, int]:
    """What a vehicle's row needs at least, in the heap and in its covering key, with its line pointer (PostgreSQL
    "Database Page Layout"): a header with a bit for each column, five values of 8 bytes, the id with its length byte,
    each aligned to 8. A measure that the reading lacks needs its bit only.
    """
    columns = len(("vehicle_id", "ts", "received_at", *VEHICLE.measures, "extra"))
    line_pointer, heap_header, index_header = 4, _aligned(23 + (columns + 7) // 8), 8
    identity = id_length + 1
    heap = line_pointer + _aligned(heap_header + 5 * 8 + identity)
    key = line_pointer + index_header + _aligned(identity) + 3 * 8
    return heap, key


def _aligned(size: int) -> int:
    return -(-size // 8) * 8
