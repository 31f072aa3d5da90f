"""Rejects are in a table for each day, each once, and the keeper deletes old days."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest

from bridge.errors import Rejected
from bridge.keeper.rejects import rejects
from bridge.store.migrate import migrate
from bridge.store.postgres import PostgresStore
from bridge.store.tables import reject_id
from local.postgres import Postgres
from tests.databases import new_database
from tests.integration import version_before

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

POISON = Rejected("not_json", "why", b"?", "fleet/vehicle/EV_1/telemetry", "EV_1")
OLD_SQL = """
INSERT INTO rejected_message (id, received_at, source, topic, device, reason, detail, payload)
VALUES ($1, $2, 'mqtt', 't', 'EV_1', 'not_json', 'why', $3) ON CONFLICT (id) DO NOTHING
"""
"""The statement of earlier versions."""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database_url)
    yield store
    await store.close()


async def tables(db: Db) -> list[tuple[str, int]]:
    """Each table of rejects that has some, and their number."""
    found = await db.fetch(
        "SELECT tableoid::regclass::text, count(*) FROM rejected_message GROUP BY tableoid ORDER BY 1"
    )
    return [tuple(row) for row in found]


def day_of(at: datetime) -> str:
    return f"rejected_message_{at:%Y%m%d}"


async def add_old(db: Db, days: int, number: int) -> str:
    """A day of the past with rejects, as it was written then; its name."""
    at = datetime.now(UTC) - timedelta(days=days)
    await db.execute(f"CREATE TABLE {day_of(at)} (LIKE rejected_message INCLUDING ALL)")
    await db.execute(f"ALTER TABLE {day_of(at)} INHERIT rejected_message")
    for n in range(number):
        id_ = uuid.uuid4()
        await db.execute("INSERT INTO reject_id VALUES ($1)", id_)
        await db.execute(
            f"INSERT INTO {day_of(at)} (id, received_at, source, reason, detail, payload) "
            "VALUES ($1, $2, 'mqtt', 'not_json', '', $3)",
            *(id_, at, b"%d" % n),
        )
    return day_of(at)


async def test_reject_is_in_the_table_of_its_day_once_whoever_writes_it(store: PostgresStore, db: Db) -> None:
    now = datetime.now(UTC)
    await store.write([POISON, POISON])
    await store.write([POISON] * 300)
    own = reject_id(POISON, "mqtt")
    for at in (now, now - timedelta(days=1), now - timedelta(days=40)):
        await db.execute(OLD_SQL, own, at, b"?")
    assert await tables(db) == [(day_of(now), 1)]
    other, ancient = uuid.uuid4(), uuid.uuid4()
    for _ in range(2):
        await db.execute(OLD_SQL, other, now - timedelta(days=1), b"1")
        await db.execute(OLD_SQL, ancient, now - timedelta(days=40), b"2")
    expected = [("rejected_message", 1), (day_of(now - timedelta(days=1)), 1), (day_of(now), 1)]
    assert await tables(db) == expected
    assert await db.fetchval("SELECT count(*) FROM reject_id") == 3
    done = "UPDATE rejected_message SET replayed_at = now() WHERE id = ANY($1)"
    assert await db.execute(done, [own, other, ancient]) == "UPDATE 3"


async def test_day_without_a_table_gets_one_with_its_first_reject(store: PostgresStore, db: Db) -> None:
    await store.write([POISON])
    await db.execute(f"DROP TABLE {day_of(datetime.now(UTC))}")
    await store.write([Rejected("not_json", "why", b"another", "t")])
    assert await tables(db) == [(day_of(datetime.now(UTC)), 1)]


async def test_keeper_deletes_old_rejects_and_no_others(store: PostgresStore, db: Db) -> None:
    await store.write([POISON])
    old, kept = await add_old(db, 91, 5), await add_old(db, 89, 5)
    now = datetime.now(UTC)
    for days in (200, 91, 89):
        await db.execute(OLD_SQL, uuid.uuid4(), now - timedelta(days=days), b"%d" % days)
    excess = "INSERT INTO reject_excess VALUES ($1, 'mqtt', '', 'EV_1', 'not_json', 1, 1)"
    for days in (91, 89):
        await db.execute(excess, now - timedelta(days=days))
    duty = rejects(3, 90)
    while await duty.run(db):
        pass
    assert await tables(db) == [("rejected_message", 1), (kept, 5), (day_of(now), 1)]
    assert await db.fetchval("SELECT count(*) FROM reject_id") == 7
    assert await db.fetchval("SELECT count(*) FROM reject_id JOIN rejected_message USING (id)") == 7
    assert await db.fetchval("SELECT to_regclass($1) IS NULL", old)
    assert await db.fetchval("SELECT count(*) FROM reject_excess") == 1
    ahead = [day_of(now + timedelta(days=n)) for n in range(4)]
    assert await db.fetchval("SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest($1::text[]) name", ahead)


@pytest.mark.parametrize("statement", ["SELECT forget_rejects(1)", "SELECT ensure_reject_day('2020-01-01')"])
async def test_writer_cannot_delete_young_rejects_or_make_any_day(db: Db, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.execute(statement)


async def test_rejects_of_before_the_migration_stay_and_are_not_stored_again(postgres: Postgres) -> None:
    url = new_database(postgres)
    await version_before.migrate(url)
    before = await version_before.connect_writer(url)
    try:
        await before.execute(OLD_SQL, reject_id(POISON, "mqtt"), datetime.now(UTC), POISON.payload)
        await version_before.reject(before, 1_000)
        await migrate(url)
        store = PostgresStore(url)
        await store.write([POISON, Rejected("not_json", "why", b"new", "t")])
        await store.close()
        await version_before.reject(before, 10)
        today = day_of(datetime.now(UTC))
        assert await tables(before) == [("rejected_message", 1_001), (today, 11)]
        assert await before.fetchval("SELECT count(*) FROM reject_id") == 1_012
    finally:
        await before.close()
