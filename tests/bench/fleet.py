"""A fleet's readings in the order of time, as devices send them, and the summaries that the keeper makes of them.

Each vehicle charges four hours a day at its meter, drives two hours, and is parked for the rest.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from bridge.keeper.leader import leading
from bridge.keeper.quarters import Quarters
from bridge.settings.keeper import KeeperSettings
from bridge.store.late_marks import QUARTER
from bridge.store.tables import TABLES, Table
from tests.bench.history import assign, columns_of, know
from tests.bench.machine import Db, Machine

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
YEAR = timedelta(days=366)
_TIMEOUT_S = 600.0
# `p` is the minute of the device's own day. The devices of a minute follow each other, so that the readings of one
# device are on different pages of the history.
_ROWS = """
INSERT INTO {partition} ({device}, ts, {values})
SELECT '{prefix}' || lpad(d::text, 6, '0'), t + (d % 60 + 0.5) * interval '1 s', {made}
FROM (SELECT t, d, (m + d / 2 * 37) % 1440 AS p
      FROM (SELECT t, (extract(epoch FROM t) / 60)::int8 AS m, generate_series({first}, {devices} - 1, 2) AS d
            FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 us', '60 s') AS t) AS minutes) AS rows
"""
_MADE = {
    "vehicle": "20 + p % 61, CASE WHEN p < 240 THEN 0.1 WHEN p < 360 THEN -0.15 ELSE 0 END, 20 + p % 31",
    "meter": "CASE WHEN p < 240 THEN 0.11 ELSE 0 END, 230",
}
_DECLARED = """
INSERT INTO device (kind, id, interval_s, time_zone)
SELECT CASE d % 2 WHEN 0 THEN 'vehicle' ELSE 'meter' END, (ARRAY['EV_', 'METER_'])[d % 2 + 1] || lpad(d::text, 6, '0'),
       60, 'Europe/Berlin'
FROM generate_series(0, $1 - 1) AS d WHERE d % 4 >= 2
"""


class Fleet(NamedTuple):
    """A database whose quarter hours are summarized, as far as they are over at `end`."""

    url: str
    devices: int
    """Alternately vehicles and meters; of every two vehicles the second one is declared, with its meter."""
    old: int
    """So many of them, the first ones, have a year of readings; the others have days."""
    rows: int
    end: datetime
    """The minute after the last reading."""


_fleets: dict[Machine, Fleet] = {}


async def long_fleet(machine: Machine) -> Fleet:
    """The run's fleet, which is made on first use."""
    if machine not in _fleets:
        _fleets[machine] = await _make(machine)
        machine.postgres.sql("CHECKPOINT")
    return _fleets[machine]


async def _make(machine: Machine) -> Fleet:
    devices, old = (2_000, 4) if machine.quick else (20_000, 20)
    days = 2 if machine.quick else max(2, round((machine.rows - old * 527_040) / devices / 1440))
    url, end, began = machine.make_database(), datetime.now(UTC).replace(second=0, microsecond=0), time.monotonic()
    recent = midnight(end) - (days - 1) * _DAY
    db: Db = await asyncpg.connect(url)
    try:
        await know(db, old)
        await store_minutes(url, old, end - YEAR, recent)
        sys.stderr.write(f"   a year of {old} devices made after {time.monotonic() - began:.0f} s\n")
        await summarize(machine, url, recent)
        sys.stderr.write(f"   and summarized after {time.monotonic() - began:.0f} s\n")
        await db.execute("TRUNCATE vehicle_live_status, meter_live_status")
        await know(db, devices)
        await assign(db, devices)
        await db.execute(_DECLARED, devices)
        await store_minutes(url, devices, recent, end)
        sys.stderr.write(f"   {days} days of {devices:,} devices made after {time.monotonic() - began:.0f} s\n")
        await db.execute("VACUUM (ANALYZE)")
        await summarize(machine, url, end)
        await db.execute("VACUUM (ANALYZE)")
        rows = await db.fetchval("SELECT sum(reltuples)::int8 FROM pg_class WHERE relname ~ '_history_[0-9]+$'")
    finally:
        await db.close()
    sys.stderr.write(f"   {rows:,} rows made and summarized after {time.monotonic() - began:.0f} s\n")
    return Fleet(url, devices, old, rows, end)


async def store_minutes(url: str, devices: int, since: datetime, until: datetime) -> None:
    """A reading of each device in each minute, day by day, in two sessions; both instants are full minutes."""
    waiting = [(table, day) for table in TABLES for day in _days(since, until)]
    db: Db = await asyncpg.connect(url)
    try:
        for table, day in waiting:
            await db.execute("SELECT ensure_partition($1::text::regclass, $2)", table.history, day.date())
    finally:
        await db.close()
    async with asyncio.TaskGroup() as sessions:
        for _ in range(2):
            sessions.create_task(_store_days(url, devices, since, until, waiting))


async def _store_days(
    url: str, devices: int, since: datetime, until: datetime, waiting: list[tuple[Table, datetime]]
) -> None:
    """Fill partition after partition until none is left for this session."""
    db: Db = await asyncpg.connect(url)
    try:
        while waiting:
            table, day = waiting.pop(0)
            partition, made = f"{table.history}_{day:%Y%m%d}", _MADE[table.kind.name]
            sql = _ROWS.format(partition=partition, made=made, **columns_of(table, devices))
            await db.execute(sql, max(day, since), min(day + _DAY, until))
    finally:
        await db.close()


def _days(since: datetime, until: datetime) -> list[datetime]:
    """The midnights of the days that have a part between two instants."""
    first = midnight(since)
    return [first + n * _DAY for n in range(-((first - until) // _DAY))]


def midnight(at: datetime) -> datetime:
    """The begin of the UTC day."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def quarter_of(at: datetime) -> datetime:
    """The begin of the quarter hour."""
    return at - (at - midnight(at)) % QUARTER


async def summarize(machine: Machine, url: str, at: datetime) -> None:
    """Summarize the quarter hours that are over at an instant, as a keeper does at that time with its default delay."""
    settings = keeper_settings(machine, url)
    quarters = Quarters((datetime.now(UTC) - at).total_seconds() + settings.quarters_delay_s, _TIMEOUT_S)
    async with leading(settings) as connection:
        while await quarters.run(connection):
            pass


def keeper_settings(machine: Machine, url: str) -> KeeperSettings:
    """The keeper's settings, with which no statement is given up: a benchmark measures how long it takes."""
    fields = {"keeper_timeout_s": _TIMEOUT_S, "keeper_lock_timeout_ms": 60_000}
    return KeeperSettings.model_validate({"database_url": machine.as_login(url, "bridge"), **fields})
