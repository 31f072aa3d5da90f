"""One transaction for history, live and rejects; readings that are written again are stored once."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest

from bridge.contract import KINDS, VEHICLE
from bridge.delivery import Item, Kept
from bridge.errors import LeadershipLost, Misconfigured, Rejected, StoreUnavailable
from bridge.reading import Reading, device_id, reading
from bridge.store.migrate import migrate, migrations
from bridge.store.postgres import FEW, SESSION, PostgresStore
from bridge.store.tables import TABLE_OF, TABLES, columns_of, row_of
from local.postgres import Postgres
from tests.readings import SEED_TIME, meter, minutes, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_WAITING = (
    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"
)


@pytest.fixture(autouse=True, params=[0, FEW], ids=["many", "few"])
def most_are_few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use both methods of storing readings."""
    monkeypatch.setattr("bridge.store.postgres.FEW", request.param)


@pytest.fixture
async def open_store(database_url: str) -> AsyncIterator[Callable[..., PostgresStore]]:
    """Opens stores of the test's database; each is closed however the test ends."""
    opened: list[PostgresStore] = []

    def open_(**settings: Any) -> PostgresStore:
        opened.append(PostgresStore(database_url, **settings))
        return opened[-1]

    yield open_
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_store: Callable[..., PostgresStore]) -> PostgresStore:
    return open_store(command_timeout_s=10)


async def cut_sessions(db: Db) -> None:
    """End every session of a store here; other databases have sessions of that name too."""
    await db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'fleet-bridge' AND datname = current_database()"
    )


async def _one_waits(db: Db) -> bool:
    return bool(await db.fetchval(_WAITING))


async def _none_waits(db: Db) -> bool:
    return not await db.fetchval(_WAITING)


async def count(db: Db, table: str) -> int:
    found: int = await db.fetchval(f"SELECT count(*) FROM {table}")
    return found


async def test_write_keeps_history_live_and_rejects(store: PostgresStore, db: Db) -> None:
    reading, poison = vehicle("EV_1", firmware="2"), Rejected("not_json", "why\0", b"\0\xff", "t\0opic")
    assert await store.write([reading, poison, meter("M_1")]) == [Kept.STORED, poison, Kept.STORED]
    row = await db.fetchrow("SELECT * FROM vehicle_telemetry_history")
    assert row is not None
    assert (row["vehicle_id"], row["ts"], row["soc"]) == ("EV_1", reading.timestamp, 72.5)
    assert row["extra"] == '{"firmware": "2"}'
    assert await db.fetchval("SELECT soc FROM vehicle_live_status WHERE vehicle_id = 'EV_1'") == 72.5
    assert await db.fetchval("SELECT voltage FROM meter_live_status WHERE meter_id = 'M_1'") == 231.5
    rejected = await db.fetchrow("SELECT * FROM rejected_message")
    assert rejected is not None
    assert (rejected["payload"], rejected["reason"]) == (b"\0\xff", "not_json")


async def test_same_readings_again_are_duplicates(store: PostgresStore, db: Db) -> None:
    readings = list(minutes("EV_1", 50))
    assert await store.write(readings) == [Kept.STORED] * 50
    assert await store.write(readings) == [Kept.DUPLICATE] * 50
    assert await store.write([*readings, vehicle("EV_2")]) == [*[Kept.DUPLICATE] * 50, Kept.STORED]
    assert await count(db, "vehicle_telemetry_history") == 51


async def test_repeated_reading_that_a_distributed_table_refuses_is_a_duplicate(store: PostgresStore, db: Db) -> None:
    """Citus passes the error of one of its servers on with another SQLSTATE."""
    readings = list(minutes("EV_1", 50))
    await store.write(readings)
    await db.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM vehicle_telemetry_history WHERE (vehicle_id, ts) = (NEW.vehicle_id, NEW.ts)) THEN
                RAISE 'duplicate key value violates unique constraint "history_102"' USING ERRCODE = 'XX000';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON vehicle_telemetry_history FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    assert await store.write(readings) == [Kept.DUPLICATE] * 50
    assert await store.write([*readings, vehicle("EV_2")]) == [*[Kept.DUPLICATE] * 50, Kept.STORED]


async def test_every_batch_is_copied_where_the_setting_says_so(database_url: str, db: Db) -> None:
    store = PostgresStore(database_url, copy_above=0)
    try:
        await store.connect()
        await db.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF current_query() NOT ILIKE 'COPY%' THEN RAISE 'not by COPY'; END IF; RETURN NEW;
            END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON vehicle_telemetry_history FOR EACH ROW EXECUTE FUNCTION refuse()
        """)
        reading = vehicle("EV_1")
        assert await store.write([reading]) == [Kept.STORED]
        assert await store.write([reading]) == [Kept.DUPLICATE]
    finally:
        await store.close()


async def test_readings_later_than_the_statistics_are_looked_up_by_their_key(
    store: PostgresStore, database_url: str, db: Db
) -> None:
    """Repeated readings are later than the planner's statistics, which must not result in a slow plan."""
    noon = SEED_TIME.replace(hour=12)
    fleet = [vehicle(f"EV_{n}", noon + timedelta(minutes=minute)) for minute in range(11) for n in range(300)]
    early, late = fleet[:-300], fleet[-300:]
    await store.write(early)
    await db.execute("ANALYZE vehicle_telemetry_history")
    await store.write(late)
    table = TABLE_OF[VEHICLE]
    columns = columns_of(table, late)
    as_bridge = await asyncpg.connect(database_url, server_settings=SESSION)
    try:
        rows = await as_bridge.fetch("EXPLAIN " + table.look_up_arrays_sql, *columns, min(columns[1]), max(columns[1]))
    finally:
        await as_bridge.close()
    plan = "\n".join(row[0] for row in rows)
    assert "Index Cond: ((vehicle_id = " in plan, plan
    assert "Join Filter" not in plan, plan
    assert "Sort" not in plan, plan


async def test_same_identity_with_other_values_is_a_conflict(store: PostgresStore, db: Db) -> None:
    first, other = vehicle("EV_1"), vehicle("EV_1", soc=1)
    await store.write([first])
    (outcome,) = await store.write([other])
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "conflict"
    assert await db.fetchval("SELECT soc FROM vehicle_telemetry_history") == 72.5
    assert await db.fetchval("SELECT soc FROM vehicle_live_status") == 72.5
    assert await db.fetchval("SELECT reason FROM rejected_message") == "conflict"


async def test_foreseen_outcomes_are_those_of_the_write_and_nothing_is_stored(store: PostgresStore, db: Db) -> None:
    known, conflict = vehicle("EV_1"), vehicle("EV_2")
    await store.write([known, conflict, meter("METER_1")])
    poison = Rejected("not_json", "why", b"x", "t")
    new = vehicle("EV_3")
    items: list[Item] = [
        known,
        vehicle("EV_2", soc=1),
        new,
        new,
        vehicle("EV_3", soc=1),
        poison,
        meter("METER_1"),
        meter("METER_2"),
    ]
    foreseen = await store.foresee(items)
    assert (await count(db, "vehicle_telemetry_history"), await count(db, "rejected_message")) == (2, 0)
    assert foreseen == await store.write(items)
    assert [o for o in foreseen if not isinstance(o, Rejected)] == [
        *(Kept.DUPLICATE, Kept.STORED, Kept.DUPLICATE, Kept.DUPLICATE, Kept.STORED)
    ]
    assert await store.foresee([]) == []


async def test_repetition_within_the_first_batch_is_found_by_the_key(store: PostgresStore, db: Db) -> None:
    first, other = vehicle("EV_1"), vehicle("EV_1", soc=1)
    outcomes = await store.write([first, first, other, vehicle("EV_2"), meter("EV_1")])
    assert outcomes[:2] == [Kept.STORED, Kept.DUPLICATE]
    assert isinstance(outcomes[2], Rejected)
    assert outcomes[3:] == [Kept.STORED, Kept.STORED]
    assert await count(db, "vehicle_telemetry_history") == 2


async def test_copied_bytes_are_the_values(store: PostgresStore, db: Db) -> None:
    """The packed rows of the binary COPY, read back through asyncpg's decoding, for ids of every length."""
    rng, now = random.Random(1), now_minute()
    made: list[Reading] = []
    for length in range(1, 65):
        name = device_id("".join(rng.choices("aZ09_-", k=length)))
        at = now - timedelta(microseconds=rng.randrange(86_400_000_000))
        more: dict[str, Any] | None = {"é": [length, None, "\u2028"], "n": -0.5} if length % 3 else None
        for kind in KINDS:
            values = {m.column: rng.uniform(-100, 100) * rng.choice([1, 1e-300]) for m in kind.measures}
            some = rng.sample(list(values), rng.randint(1, len(values)))
            made.append(reading(kind, name, at, {column: values[column] for column in some}, more))
    await store.write(made)
    for table in TABLES:
        sent = {r.device: (*row_of(r)[:-1], r.extra) for r in made if r.kind is table.kind}
        for relation in (table.history, table.live):
            rows = await db.fetch(f"SELECT {', '.join(table.columns)} FROM {relation}")
            assert {r[0]: (*tuple(r)[:-1], r["extra"] and json.loads(r["extra"])) for r in rows} == sent


async def test_rejected_message_again_is_kept_once(store: PostgresStore, db: Db) -> None:
    poison = Rejected("not_json", "why", b"x", "t")
    await store.write([poison, poison])
    await store.write([poison])
    assert await count(db, "rejected_message") == 1


async def test_late_reading_leaves_the_live_row(store: PostgresStore, db: Db) -> None:
    newest = now_minute()
    await store.write([vehicle("EV_1", newest, soc=50)])
    await store.write([vehicle("EV_1", newest - timedelta(minutes=5), soc=10)])
    assert await db.fetchval("SELECT soc FROM vehicle_live_status") == 50
    assert await count(db, "vehicle_telemetry_history") == 2


async def test_many_readings_of_a_device_in_one_batch_leave_its_newest_live(store: PostgresStore, db: Db) -> None:
    readings = list(minutes("EV_1", 100))
    await store.write(readings[::-1])
    assert await db.fetchval("SELECT ts FROM vehicle_live_status") == readings[-1].timestamp


@pytest.mark.parametrize("poisoned", [{0}, {49}, {99}, {3, 4, 5, 77}, set(range(100))])
async def test_poison_only_the_database_sees_is_found_by_halving(
    store: PostgresStore, db: Db, poisoned: set[int]
) -> None:
    await db.execute(
        "CREATE FUNCTION overflow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.soc = 66.6 THEN PERFORM 2000000000 * NEW.soc::int; END IF; RETURN NEW; END $$"
    )
    await db.execute(
        "CREATE TRIGGER poison BEFORE INSERT ON vehicle_telemetry_history FOR EACH ROW EXECUTE FUNCTION overflow()"
    )
    now = now_minute()
    readings = [vehicle("EV_1", now - timedelta(minutes=n), soc=66.6 if n in poisoned else 50.0) for n in range(100)]
    outcomes = await store.write(readings)
    assert {n for n, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)} == poisoned
    assert all(o.reason == "unstorable" for o in outcomes if isinstance(o, Rejected))
    assert await count(db, "vehicle_telemetry_history") == 100 - len(poisoned)
    assert await count(db, "rejected_message") == len(poisoned)


async def test_two_writers_of_the_same_readings_in_opposite_orders_store_each_once(database_url: str, db: Db) -> None:
    readings = [reading for n in range(40) for reading in minutes(f"EV_{n}", 25)]
    mqtt, http = PostgresStore(database_url, source="mqtt"), PostgresStore(database_url, source="http")
    try:
        for start in range(0, 1000, 100):
            part = readings[start : start + 100]
            outcomes = await asyncio.gather(mqtt.write(part), http.write(part[::-1]))
            kept = [outcome for one in outcomes for outcome in one]
            assert kept.count(Kept.STORED) == kept.count(Kept.DUPLICATE) == 100
    finally:
        await mqtt.close()
        await http.close()
    assert await count(db, "vehicle_telemetry_history") == 1000
    assert await count(db, "rejected_message") == 0


@pytest.mark.parametrize("change", ["UPDATE {} SET received_at = now()", "DELETE FROM {}", "TRUNCATE {}"])
async def test_history_refuses_every_change(store: PostgresStore, db: Db, change: str) -> None:
    await store.write([vehicle(), meter()])
    partition = f"vehicle_telemetry_history_{now_minute():%Y%m%d}"
    for table in ("vehicle_telemetry_history", "meter_telemetry_history", partition):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await db.execute(change.format(table))
    assert await count(db, "vehicle_telemetry_history") == 1


async def test_partitions_are_those_that_readings_need(store: PostgresStore, db: Db) -> None:
    """Those of the next days are the keeper's: creating them would wait for locks that readings do not wait for."""
    now = now_minute()
    times = [now, now - timedelta(days=80)]
    assert await store.write([vehicle("EV_1", at) for at in times]) == [Kept.STORED] * 2
    names = {row[0] for row in await db.fetch("SELECT relname FROM pg_class WHERE relkind = 'r' AND relispartition")}
    assert names == {f"vehicle_telemetry_history_{at:%Y%m%d}" for at in times}
    assert await count(db, f"vehicle_telemetry_history_{times[1]:%Y%m%d}") == 1


async def test_partition_is_made_once_by_two_at_once(database_url: str, db: Db) -> None:
    connections = [await asyncpg.connect(database_url) for _ in range(4)]
    for day in range(20):
        made = await asyncio.gather(
            *(
                c.fetchval("SELECT ensure_partition('meter_telemetry_history', date '2030-01-01' + $1::int)", day)
                for c in connections
            )
        )
        assert sorted(made) == [False, False, False, True]
    await asyncio.gather(*(c.close() for c in connections))


async def test_midnight_belongs_to_the_new_day(store: PostgresStore, db: Db) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    before = midnight - timedelta(microseconds=1)
    assert await store.write([vehicle("EV_1", before), vehicle("EV_1", midnight)]) == [Kept.STORED] * 2
    assert await db.fetchval(f"SELECT ts FROM vehicle_telemetry_history_{midnight:%Y%m%d}") == midnight
    assert await db.fetchval(f"SELECT ts FROM vehicle_telemetry_history_{before:%Y%m%d}") == before


async def test_dropped_partition_is_made_again(store: PostgresStore, db: Db) -> None:
    await store.write([vehicle("EV_1")])
    await db.execute(f"DROP TABLE vehicle_telemetry_history_{now_minute():%Y%m%d}")
    with pytest.raises(StoreUnavailable, match="partition"):
        await store.write([vehicle("EV_2")])
    assert await store.write([vehicle("EV_2")]) == [Kept.STORED]


async def test_cut_connection_is_unavailable_and_then_mends(store: PostgresStore, db: Db) -> None:
    first, second = vehicle("EV_1"), vehicle("EV_2")
    await store.write([first])
    async with db.transaction():
        await db.execute("LOCK TABLE vehicle_live_status IN EXCLUSIVE MODE")
        writing = asyncio.ensure_future(store.write([second]))
        await until(lambda: _one_waits(db))
        await cut_sessions(db)
        with pytest.raises(StoreUnavailable):
            await writing
    assert await store.write([second, first]) == [Kept.STORED, Kept.DUPLICATE]


async def test_locked_table_is_unavailable_after_the_time_limit(
    open_store: Callable[..., PostgresStore], db: Db
) -> None:
    store, second = open_store(command_timeout_s=0.5), vehicle("EV_2")
    await store.write([vehicle("EV_1")])
    async with db.transaction():
        await db.execute("LOCK TABLE vehicle_live_status IN EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await store.write([second])
        await until(lambda: _none_waits(db))  # the server times out, too: no session remains
    # The result is unknown: the server may complete a statement after the client has timed out.
    assert await store.write([second]) in ([Kept.STORED], [Kept.DUPLICATE])
    assert await count(db, "vehicle_telemetry_history") == 2


async def test_live_rows_are_locked_in_the_order_of_every_writer(store: PostgresStore, db: Db) -> None:
    earlier = now_minute() - timedelta(minutes=1)
    await store.write([vehicle("EV_1", earlier), meter("METER_1", earlier)])
    async with db.transaction():
        await db.execute("SELECT FROM vehicle_live_status FOR UPDATE")
        writing = asyncio.create_task(store.write([meter("METER_1"), vehicle("EV_1")]))
        await until(lambda: db.fetchval(_WAITING))
        await db.execute("SELECT FROM meter_live_status FOR UPDATE NOWAIT")
    assert await writing == [Kept.STORED] * 2


async def test_read_only_server_is_unavailable(
    database_url: str, open_store: Callable[..., PostgresStore], db: Db
) -> None:
    name = database_url.rsplit("/", 1)[1]
    await db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store = open_store(command_timeout_s=2)
    with pytest.raises(StoreUnavailable):
        await store.write([vehicle()])


async def test_server_that_may_forget_is_refused(
    database_url: str, open_store: Callable[..., PostgresStore], db: Db
) -> None:
    name = database_url.rsplit("/", 1)[1]
    await db.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(Misconfigured, match="synchronous_commit"):
        await open_store().write([vehicle()])


async def test_lock_is_held_by_one_and_free_after_it_is_gone(open_store: Callable[..., PostgresStore], db: Db) -> None:
    first, second = (open_store(lock_name="main") for _ in range(2))
    await first.write([vehicle("EV_1")])
    with pytest.raises(LeadershipLost):
        await second.write([vehicle("EV_2")])
    await cut_sessions(db)
    assert await second.write([vehicle("EV_2")]) == [Kept.STORED]
    with pytest.raises(StoreUnavailable):
        await first.write([vehicle("EV_3")])
    with pytest.raises(LeadershipLost):
        await first.write([vehicle("EV_3")])


async def test_migrate_is_idempotent_and_safe_at_once(postgres: Postgres) -> None:
    postgres.sql("CREATE DATABASE migrated OWNER fleet")
    try:
        url = postgres.url("migrated", "fleet")
        applied = await asyncio.gather(*(migrate(url) for _ in range(4)))
        assert sorted(applied) == [[], [], [], list(migrations())]
        assert await migrate(url) == []
    finally:
        postgres.sql("DROP DATABASE migrated WITH (FORCE)")


async def test_migrate_refuses_a_newer_database(database_url: str, db: Db) -> None:
    await db.execute("INSERT INTO schema_migration (name) VALUES ('9999_future')")
    with pytest.raises(Misconfigured, match="9999_future"):
        await migrate(database_url)


async def test_reading_at_the_edges_of_every_type(store: PostgresStore, db: Db) -> None:
    edge = vehicle(
        "a" * 64, SEED_TIME.replace(microsecond=999_999), soc=0.1 + 0.2, deep={"a": [1e308, -0.0, "é\u2028"]}
    )
    window_is_not_the_stores_business = await store.write([edge])
    assert window_is_not_the_stores_business == [Kept.STORED]
    assert await store.write([edge]) == [Kept.DUPLICATE]
    row = await db.fetchrow("SELECT * FROM vehicle_telemetry_history")
    assert row is not None
    assert (row["soc"], row["ts"]) == (0.1 + 0.2, edge.timestamp)


async def test_conflict_within_a_batch_is_judged_by_what_the_history_holds(store: PostgresStore, db: Db) -> None:
    """The batch's first has lost its identity to another writer; its second is what that one stored."""
    first, other = vehicle("EV_1"), vehicle("EV_1", soc=1)
    await store.write([first])
    conflict, duplicate = await store.write([other, first])
    assert isinstance(conflict, Rejected)
    assert duplicate is Kept.DUPLICATE
    kept = await db.fetch("SELECT payload FROM rejected_message")
    assert [json.loads(row["payload"])["soc"] for row in kept] == [1]
