"""Each program's role in the database has only the necessary privileges; none can change the history."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest
from structlog.testing import capture_logs

from bridge import audit
from bridge.delivery import Kept
from bridge.errors import LeadershipLost, Rejected
from bridge.store.migrate import migrate, widen_partition_window
from bridge.store.ownership import Ownership
from bridge.store.postgres import PostgresStore
from local.postgres import LOGINS, Postgres
from tests.readings import meter, minutes, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HISTORY = {"vehicle_telemetry_history", "meter_telemetry_history"}
LIVE = {"vehicle_live_status", "meter_live_status"}
VIEWS = {
    "meter_assignment_interval",
    "history_day",
    "vehicle_energy_quarter",
    "meter_energy_quarter",
    "assigned_energy_quarter",
    "charging_session",
    "vehicle_live",
    "meter_live",
}
READ, ADD, KEEP = {"SELECT"}, {"SELECT", "INSERT"}, {"SELECT", "INSERT", "UPDATE"}
MANAGE = KEEP | {"DELETE"}
SUMMARIES = {f"{kind}_{length}" for kind in ("vehicle", "meter") for length in ("quarter", "hour", "six_hour")}
DIRTY = {"vehicle_quarter_dirty", "meter_quarter_dirty"}
RIGHTS: dict[str, dict[str, set[str]]] = {
    "fleet_writer": {
        **dict.fromkeys(HISTORY, ADD),
        **dict.fromkeys(LIVE, KEEP),
        **dict.fromkeys(SUMMARIES, KEEP),
        **dict.fromkeys(DIRTY, ADD | {"DELETE"}),
        "quarter_mark": READ | {"UPDATE"},
        "quarter_day": ADD | {"DELETE"},
        "rejected_message": ADD,
        "reject_excess": KEEP,
        "device": READ,
        "meter_assignment": READ,
        "alarm_rule": READ,
        "alarm": ADD,
        "alarm_webhook": READ,
        "alarm_delivery": MANAGE,
        "alarm_pending": ADD | {"DELETE"},
        "bridge_work": MANAGE,
        "database_size": ADD | {"DELETE"},
        "process_status": MANAGE,
        "schema_migration": READ,
    },
    "fleet_reader": {
        **dict.fromkeys(HISTORY | LIVE | SUMMARIES | DIRTY | VIEWS, READ),
        "quarter_mark": READ,
        "meter_assignment": READ,
        "device": READ,
        "reading_conflict": READ,
        "reject_excess": READ,
        "alarm": READ,
        "alarm_rule": READ,
        "alarm_pending": READ,
        "database_size": READ,
        "process_status": READ,
        "schema_migration": READ,
    },
    "fleet_api": {
        "schema_migration": READ,
        "api_key": KEEP,
        "meter_assignment": MANAGE,
        "device": MANAGE,
        "audit_log": READ,
        "alarm": READ,
        "alarm_rule": MANAGE,
        "alarm_webhook": ADD | {"DELETE"},
        "alarm_delivery": READ | {"DELETE"},
    },
}
AUDIT = "INSERT INTO audit_log (actor, action, subject, detail"
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


@pytest.fixture
def logins(postgres: Postgres, database_url: str) -> Postgres:
    """The server with the login roles, and the database with their rights."""
    for role, groups in {**LOGINS, "analyst": ("fleet_reader",)}.items():
        postgres.ensure_login(role, groups)
    asyncio.run(migrate(database_url))
    return postgres


def url_of(logins: Postgres, database_url: str, role: str) -> str:
    return logins.url(database_url.rsplit("/", 1)[1], role)


@contextlib.asynccontextmanager
async def connected(url: str) -> "AsyncIterator[Db]":
    connection = await asyncpg.connect(url, command_timeout=10)
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture
async def writer(logins: Postgres, database_url: str) -> AsyncIterator[PostgresStore]:
    """The bridge's store, as the bridge's own role."""
    store = PostgresStore(url_of(logins, database_url, "bridge"), lock_name="main", command_timeout_s=10)
    yield store
    await store.close()


@pytest.mark.parametrize("group", RIGHTS)
async def test_group_has_its_rights_and_no_other(logins: Postgres, db: Db, writer: PostgresStore, group: str) -> None:
    await writer.write([vehicle(), meter()])  # the partitions exist, and are covered by this too
    tables = [
        row[0]
        for row in await db.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm') "
            "AND relnamespace = 'public'::regnamespace"
        )
    ]
    assert {f"{history}_{now_minute():%Y%m%d}" for history in HISTORY} < set(tables)
    question = "SELECT p FROM unnest($3::text[]) p WHERE has_table_privilege($1, $2::text, p)"
    found = {table: {row[0] for row in await db.fetch(question, group, table, PRIVILEGES)} for table in tables}
    assert {table: rights for table, rights in found.items() if rights} == RIGHTS[group]


async def test_writer_stores_everything_the_owner_can(writer: PostgresStore, db: Db) -> None:
    poison = Rejected("not_json", "why", b"\0", "t")
    readings = list(minutes("EV_1", 50))
    old = vehicle("EV_1", now_minute() - timedelta(days=80))
    assert await writer.write([*readings, meter(), poison, old]) == [Kept.STORED] * 51 + [poison, Kept.STORED]
    (again, conflict) = await writer.write([readings[0], vehicle("EV_1", readings[1].timestamp, soc=99)])
    assert again is Kept.DUPLICATE
    assert isinstance(conflict, Rejected)
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 51
    owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = $1"
    assert await db.fetchval(owner, f"vehicle_telemetry_history_{old.timestamp:%Y%m%d}") == "fleet"


@pytest.mark.parametrize("role", ["bridge", "api", "analyst", "fleet"])
@pytest.mark.parametrize("change", ["UPDATE {} SET received_at = now()", "DELETE FROM {}", "TRUNCATE {}"])
async def test_history_cannot_be_changed(
    logins: Postgres, database_url: str, writer: PostgresStore, role: str, change: str
) -> None:
    await writer.write([vehicle(), meter()])
    async with connected(url_of(logins, database_url, role)) as connection:
        for table in [*HISTORY, f"vehicle_telemetry_history_{now_minute():%Y%m%d}"]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(change.format(table))


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("bridge", "SELECT * FROM api_key"),
        ("bridge", "SELECT * FROM audit_log"),
        ("bridge", "DELETE FROM meter_assignment"),
        ("bridge", "DELETE FROM alarm"),
        ("bridge", "UPDATE alarm SET note = 'mine'"),
        ("bridge", "UPDATE alarm_rule SET enabled = false"),
        ("api", "DELETE FROM alarm"),
        ("analyst", "SELECT * FROM alarm_webhook"),
        ("bridge", "DELETE FROM vehicle_live_status"),
        ("bridge", "UPDATE device SET name = 'mine'"),
        ("bridge", "UPDATE rejected_message SET payload = ''"),
        ("bridge", "DELETE FROM rejected_message"),
        ("bridge", "CREATE TABLE mine ()"),
        ("bridge", "DROP TABLE vehicle_telemetry_history"),
        ("bridge", "ALTER TABLE vehicle_telemetry_history DISABLE TRIGGER ALL"),
        ("bridge", "SET session_replication_role = replica"),
        ("bridge", "SET ROLE fleet"),
        ("bridge", "SELECT ensure_partition('audit_log', current_date)"),
        ("bridge", "SELECT grant_roles()"),
        ("bridge", "SELECT revoke_public()"),
        ("bridge", "SELECT require_partition_window(current_date, current_date)"),
        ("bridge", "UPDATE partition_window SET past_days = 9999"),
        ("bridge", "UPDATE leadership SET key = 1"),
        ("analyst", "SELECT take_leadership(26220, 'main')"),
        ("analyst", "SELECT * FROM leadership"),
        ("analyst", "CREATE TEMP TABLE mine ()"),
        ("bridge", "COPY vehicle_live_status TO PROGRAM 'id'"),
        ("bridge", "SELECT pg_read_file('postgresql.conf')"),
        ("api", "DELETE FROM api_key"),
        ("api", "TRUNCATE meter_assignment"),
        ("api", "TRUNCATE device"),
        ("api", "UPDATE audit_log SET actor = 'nobody'"),
        ("api", "DELETE FROM audit_log"),
        ("api", f"{AUDIT}, at) VALUES ('cli:me', 'key.create', 'key:x', '{{}}', '2020-01-01')"),
        ("api", f"{AUDIT}, login) VALUES ('cli:me', 'key.create', 'key:x', '{{}}', 'bridge')"),
        ("api", f"{AUDIT}, id) OVERRIDING SYSTEM VALUE VALUES ('cli:me', 'key.create', 'key:x', '{{}}', 1)"),
        ("api", f"{AUDIT}) VALUES ('key:other', 'key.create', 'key:x', '{{}}')"),
        ("api", f"{AUDIT}) VALUES ('somebody', 'key.create', 'key:x', '{{}}')"),
        ("bridge", f"{AUDIT}) VALUES ('cli:me', 'key.create', 'key:x', '{{}}')"),
        ("api", "CREATE TABLE mine ()"),
        ("analyst", "INSERT INTO vehicle_live_status VALUES ('EV_1', now(), now(), 1, 1, 1)"),
        ("analyst", "DELETE FROM device"),
        ("analyst", "SELECT * FROM api_key"),
        ("analyst", "SELECT * FROM rejected_message"),
        ("analyst", "SELECT ensure_partition('vehicle_telemetry_history', current_date)"),
    ],
)
async def test_role_is_refused(logins: Postgres, database_url: str, role: str, statement: str) -> None:
    async with connected(url_of(logins, database_url, role)) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_object_of_another_schema_is_not_taken_for_ours(
    logins: Postgres, database_url: str, writer: PostgresStore
) -> None:
    """A temporary table of a role must not be used as the history in the function with the owner's privileges."""
    async with connected(url_of(logins, database_url, "bridge")) as connection:
        await connection.execute("CREATE TEMP TABLE vehicle_telemetry_history (ts timestamptz) PARTITION BY RANGE (ts)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="no history"):
            await connection.fetchval("SELECT ensure_partition('pg_temp.vehicle_telemetry_history', current_date)")
        made = "SELECT ensure_partition('public.vehicle_telemetry_history', current_date + 2)"
        assert await connection.fetchval(made) is True
    assert await writer.write([vehicle()]) == [Kept.STORED]


@pytest.mark.parametrize(("role", "action"), [("api", "key.create"), ("bridge", "rejected.replay")])
async def test_audit_row_has_the_time_and_the_login_of_the_database(
    logins: Postgres, database_url: str, db: Db, role: str, action: str
) -> None:
    """A transaction that is left open for long does not make its row older."""
    async with connected(url_of(logins, database_url, role)) as connection, connection.transaction():
        began = await connection.fetchval("SELECT now()")
        await connection.execute("SELECT pg_sleep(0.05)")
        await audit.record(connection, "cli:me", action, "x")  # type: ignore[arg-type]
    row = await db.fetchrow("SELECT at, login FROM audit_log")
    assert row is not None
    assert row["login"] == role
    assert began + timedelta(seconds=0.05) <= row["at"] <= await db.fetchval("SELECT clock_timestamp()")


@pytest.mark.parametrize("days", [-122, 11, 40_000])
async def test_partition_is_created_in_the_window_only(logins: Postgres, database_url: str, db: Db, days: int) -> None:
    tables = "SELECT count(*) FROM pg_class WHERE relispartition"
    before, month = await db.fetchval(tables), days + (31 if days > 0 else -31)
    async with connected(url_of(logins, database_url, "bridge")) as connection:
        for history in HISTORY:
            with pytest.raises(asyncpg.DataError, match="no partition is created"):
                await connection.fetchval(f"SELECT ensure_partition('{history}', current_date + {days})")
        for summary in SUMMARIES:
            with pytest.raises(asyncpg.DataError, match="no partition is created"):
                await connection.fetchval(f"SELECT ensure_quarter_partition('{summary}', current_date + {month})")
    assert await db.fetchval(tables) == before


async def test_summaries_of_a_day_that_is_attached_have_a_partition(
    logins: Postgres, database_url: str, db: Db
) -> None:
    await db.execute("SELECT ensure_partition('vehicle_telemetry_history', current_date - 1000)")
    async with connected(url_of(logins, database_url, "bridge")) as connection:
        for summary in ("vehicle_quarter", "vehicle_hour", "vehicle_six_hour"):
            assert await connection.fetchval(f"SELECT ensure_quarter_partition('{summary}', current_date - 1000)")
        with pytest.raises(asyncpg.DataError):
            await connection.fetchval("SELECT ensure_quarter_partition('meter_quarter', current_date - 1000)")


@pytest.mark.parametrize("others", [0, 300])
async def test_reading_beyond_the_window_is_a_reject_and_its_neighbours_are_stored(
    logins: Postgres, database_url: str, writer: PostgresStore, others: int
) -> None:
    old, late = vehicle("EV_1", now_minute() - timedelta(days=500)), vehicle("EV_1", now_minute() - timedelta(days=60))
    many = list(minutes("EV_2", others))
    outcomes = await writer.write([old, late, *many])
    assert isinstance(outcomes[0], Rejected)
    assert (outcomes[0].reason, outcomes[0].detail[:24]) == ("unstorable", "no partition is created ")
    assert outcomes[1:] == [Kept.STORED] * (1 + others)

    await widen_partition_window(database_url, 600, 3)
    await widen_partition_window(database_url, 90, 3)
    assert await writer.write([old]) == [Kept.STORED]


# -- Leadership


async def test_lock_that_an_analyst_holds_keeps_no_bridge_from_working(
    logins: Postgres, database_url: str, writer: PostgresStore, db: Db
) -> None:
    """It takes the key before there is a bridge, and that of the working bridge when it ends; nothing waits for it."""
    async with connected(url_of(logins, database_url, "analyst")) as analyst:
        first = await db.fetchval("SELECT hashtext('main')")
        assert await analyst.fetchval("SELECT pg_try_advisory_lock(26220, $1)", first)
        assert await writer.write([vehicle("EV_1")]) == [Kept.STORED]
        second = PostgresStore(url_of(logins, database_url, "bridge"), lock_name="main")
        try:
            with pytest.raises(LeadershipLost):
                await second.connect()
            key = await db.fetchval("SELECT key FROM leadership")
            assert key != first
            waiting = asyncio.create_task(analyst.execute(f"SELECT pg_advisory_lock(26220, {key})"))
            await until(lambda: db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
            await writer.close()
            await waiting
            assert await second.write([vehicle("EV_2")]) == [Kept.STORED]
            with pytest.raises(LeadershipLost):
                await writer.connect()
        finally:
            await second.close()


async def test_bridge_stands_by_while_one_of_an_earlier_version_leads(
    logins: Postgres, database_url: str, writer: PostgresStore
) -> None:
    async with connected(url_of(logins, database_url, "bridge")) as earlier:
        assert await earlier.fetchval("SELECT pg_try_advisory_lock(26220, hashtext('main'))")
        with pytest.raises(LeadershipLost):
            await writer.connect()
    await until(lambda: _connects(writer))


async def _connects(store: PostgresStore) -> bool:
    try:
        await store.connect()
    except LeadershipLost:
        return False
    return True


async def test_of_many_bridges_one_leads_though_the_key_is_taken(logins: Postgres, database_url: str) -> None:
    stores = [PostgresStore(url_of(logins, database_url, "bridge"), lock_name="main") for _ in range(8)]
    async with connected(url_of(logins, database_url, "analyst")) as analyst:
        try:
            await analyst.fetchval("SELECT pg_advisory_lock_shared(26220, hashtext('main'))")
            found = await asyncio.gather(*(_connects(store) for store in stores))
            assert sum(found) == 1
        finally:
            await asyncio.gather(*(store.close() for store in stores))


# -- Everybody


async def test_everybody_has_nothing(logins: Postgres, database_url: str, db: Db) -> None:
    role = "stranger"
    logins.ensure_login(role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
        await asyncpg.connect(url_of(logins, database_url, role))
    public = """
    SELECT proname::text FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
    WHERE pronamespace = 'public'::regnamespace AND grantee = 0
    UNION ALL
    SELECT relname FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'public'::regnamespace AND grantee = 0
    UNION ALL
    SELECT nspname FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'public' AND grantee = 0
    UNION ALL
    SELECT datname FROM pg_database, aclexplode(datacl) WHERE datname = current_database() AND grantee = 0
    """
    assert [row[0] for row in await db.fetch(public)] == []
    await db.execute("CREATE FUNCTION of_a_later_version() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'")
    assert [row[0] for row in await db.fetch(public)] == []


async def test_owner_who_may_not_take_from_everybody_is_told_how(postgres: Postgres) -> None:
    postgres.sql("CREATE DATABASE foreign_schema OWNER fleet")
    postgres.sql(
        "ALTER SCHEMA public OWNER TO postgres; GRANT CREATE, USAGE ON SCHEMA public TO fleet", "foreign_schema"
    )
    with capture_logs() as logs:
        await migrate(postgres.url("foreign_schema", "fleet"))
    remedies = [entry["remedy"] for entry in logs if entry["event"] == "PUBLIC has rights"]
    assert len(remedies) == 1
    assert "REVOKE ALL ON SCHEMA public FROM PUBLIC" in remedies[0]


async def test_owner_who_may_not_make_roles_is_told_how(postgres: Postgres) -> None:
    """A cluster of its own would be needed to see it without the roles: they are renamed for the while."""
    postgres.sql("CREATE DATABASE roleless OWNER fleet")
    names = [group for group in RIGHTS if postgres.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{group}'")]
    for name in names:
        postgres.sql(f"ALTER ROLE {name} RENAME TO {name}_away")
    try:
        with capture_logs() as logs:
            await migrate(postgres.url("roleless", "fleet"))
        create = "; ".join(f"CREATE ROLE {group} NOLOGIN" for group in RIGHTS)
        assert [entry["remedy"] for entry in logs if entry["event"] == "roles missing"] == [
            f"as a superuser run `{create}`, then migrate again"
        ]
    finally:
        for name in names:
            postgres.sql(f"ALTER ROLE {name}_away RENAME TO {name}")
    postgres.ensure_login("bridge", LOGINS["bridge"])
    await migrate(postgres.url("roleless", "fleet"))
    store = PostgresStore(postgres.url("roleless", "bridge"))
    assert await store.write([vehicle()]) == [Kept.STORED]
    await store.close()


async def test_logins_have_passwords_of_their_own(logins: Postgres, database_url: str) -> None:
    urls = {role: url_of(logins, database_url, role) for role in ("postgres", "fleet", "bridge", "api")}
    assert len({url.split(":")[2].split("@")[0] for url in urls.values()}) == 4
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(urls["bridge"].replace("//bridge:", "//api:"))


async def test_analyst_that_claims_to_be_a_bridge_takes_no_partition_away(logins: Postgres, database_url: str) -> None:
    async with connected(url_of(logins, database_url, "analyst")) as analyst:
        await analyst.execute("SELECT pg_advisory_lock_shared(26221, hashtext('main'))")
        ownership = Ownership(url_of(logins, database_url, "bridge"), "main", 4, 5)
        async with contextlib.aclosing(ownership.changes()) as changes:
            try:
                assert await anext(changes) == {0, 1, 2, 3}
            finally:
                await ownership.close()
