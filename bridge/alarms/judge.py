"""The duty that judges the rules. Its state is in the database, so another keeper continues from there."""

from datetime import UTC, datetime, timedelta

from bridge.alarms import judge_sql
from bridge.alarms.measures import BRIDGE_OUTAGE, BRIDGES_LOST, CERTIFICATE_DAYS, DISK_DAYS
from bridge.certificates import expires_at
from bridge.contract import KINDS
from bridge.keeper.port import Duty
from bridge.settings.alarms import AlarmSettings
from bridge.status import COUNT_LOST_BRIDGES, EVERY_S, StatusColumn
from bridge.store.session import Connection

_GIB = 1 << 30
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
# The session of the keeper is set for reading the history by key; here every device is read. The planner expects one
# row of the conditions on values, and nested loops would multiply devices by open alarms.
_WHOLE_TABLES = """
SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on;
SET LOCAL enable_nestloop = off; SET LOCAL work_mem = '64MB';
SET LOCAL plan_cache_mode = force_custom_plan
"""
_CLOSED = "SELECT min(closed_until) FROM quarter_mark WHERE isfinite(closed_until) HAVING count(*) = $1"
_SAMPLE = """
INSERT INTO database_size (bytes) SELECT pg_database_size(current_database())
WHERE NOT EXISTS (SELECT FROM database_size WHERE at > now() - interval '1 hour')
"""
_FORGET = "DELETE FROM database_size WHERE at < now() - interval '30 days'"
# A database that does not grow lasts a century.
_DISK = """
SELECT least(CASE WHEN growth > 0 THEN ($1 - bytes) / growth END, 36500) FROM (
    SELECT regr_slope(bytes, extract(epoch FROM at)::float8 / 86400) AS growth,
           (array_agg(bytes ORDER BY at DESC))[1] AS bytes
    FROM database_size WHERE at > now() - interval '7 days' HAVING max(at) - min(at) >= interval '1 day'
) AS s
"""
# When a bridge has not worked for longer than $1, what was silent meanwhile begins to count at its return.
_NOTE_BRIDGE = """
INSERT INTO bridge_work AS w (working_since, working_until)
SELECT '-infinity', at FROM (
    SELECT max(reported_at - coalesce(lag_s, 0) * interval '1 s') AS at
    FROM process_status WHERE program = 'bridge' AND active AND problem IS NULL
) AS bridge WHERE at IS NOT NULL
ON CONFLICT (one) DO UPDATE SET working_until = greatest(w.working_until, excluded.working_until),
    working_since = CASE WHEN excluded.working_until > w.working_until + $1 THEN excluded.working_until
                         ELSE w.working_since END
"""
# An installation may do without a bridge from some day on.
_FORGET_BRIDGE = "DELETE FROM bridge_work WHERE working_until < now() - interval '7 days'"
_OUTAGE = "SELECT coalesce(extract(epoch FROM now() - max(working_until))::float8, 0) FROM bridge_work"


class Judge:
    """Judges every rule. One instance lives as long as the process."""

    def __init__(self, settings: AlarmSettings, interval_s: float) -> None:
        """`interval_s` is the interval of a device that declares none."""
        self._settings = settings
        self._interval_s = interval_s
        self._judged_until: datetime | None = None
        self._problem: str | None = None
        self._of_system: dict[str, float | None] = {}

    @property
    def duty(self) -> Duty:
        """The duty, and what it tells about itself."""
        every_s = self._settings.alarms_every_s
        return Duty("alarms", every_s, self.run, problem=lambda: self._problem, status=self._status)

    async def run(self, connection: Connection) -> bool:
        """Judge each rule once. Every statement is a transaction of its own."""
        is_mqtt = self._settings.alarm_mqtt_url is not None
        await connection.execute(_NOTE_BRIDGE, timedelta(seconds=2 * self._settings.alarms_every_s + 3 * EVERY_S))
        await connection.execute(_FORGET_BRIDGE)
        await _judge(connection, judge_sql.sweep_sql(), is_mqtt)
        await _judge(connection, judge_sql.sweep_pending_sql())
        for kind in KINDS:
            await _judge(connection, judge_sql.live_sql(kind), is_mqtt, self._interval_s)
        await _judge(connection, judge_sql.rejects_sql(), is_mqtt)
        await self._judge_quarters(connection, is_mqtt)
        self._of_system = await self._system(connection)
        values = {name: value for name, value in self._of_system.items() if value is not None}
        await _judge(connection, judge_sql.system_sql(), is_mqtt, list(values), list(values.values()))
        return False

    def _status(self) -> dict[StatusColumn, float | None]:
        """What was judged of the system at the last run."""
        own = self._of_system
        return {"certificate_days": own.get(CERTIFICATE_DAYS.name), "disk_days": own.get(DISK_DAYS.name)}

    async def _judge_quarters(self, connection: Connection, is_mqtt: bool) -> None:
        """When another quarter hour has been summarized."""
        closed = await connection.fetchval(_CLOSED, len(KINDS))
        if closed is None or closed == self._judged_until:
            return
        for sql in (*map(judge_sql.power_sql, KINDS), judge_sql.efficiency_sql()):
            await _judge(connection, sql, is_mqtt, closed - _HOUR, closed)
        self._judged_until = closed

    async def _system(self, connection: Connection) -> dict[str, float | None]:
        await connection.execute(_SAMPLE)
        await connection.execute(_FORGET)
        limit = self._settings.database_limit_gib
        return {
            CERTIFICATE_DAYS.name: self._certificate_days(),
            BRIDGE_OUTAGE.name: await connection.fetchval(_OUTAGE),
            BRIDGES_LOST.name: await connection.fetchval(COUNT_LOST_BRIDGES),
            DISK_DAYS.name: None if limit is None else await connection.fetchval(_DISK, limit * _GIB),
        }

    def _certificate_days(self) -> float | None:
        """Until the first of the certificates expires; None without any, or if one cannot be read."""
        try:
            now = datetime.now(UTC)
            days = [(expires_at(path) - now) / _DAY for path in self._settings.certificate_files]
        except (OSError, ValueError) as error:
            self._problem = f"FLEET_ALARM_CERTIFICATE_FILES: {error}"
            return None
        self._problem = None
        return min(days, default=None)


async def _judge(connection: Connection, sql: str, *arguments: object) -> None:
    async with connection.transaction():
        await connection.execute(_WHOLE_TABLES)
        await connection.execute(sql, *arguments)
