"""What a process tells others about itself: one row of `process_status`, replaced every few seconds.

The row is written on a session of its own that waits for no flush of the log, so no reading waits for it. A report that
fails is left out; then the row ages, which its reader sees.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple, get_args

import structlog

from bridge.errors import Misconfigured, StoreUnavailable
from bridge.store.database_errors import asking
from bridge.store.session import Connection, open_session
from bridge.version import VERSION

log = structlog.get_logger(__name__)

Program = Literal["bridge", "keeper", "api"]

EVERY_S = 5.0
STALE_S = 3 * EVERY_S
"""A row that is older is that of a process that no longer reports."""
KEPT_DAYS = 1
"""How long the row of a process that stopped reporting is kept."""
COUNT_LOST_BRIDGES = f"""
SELECT sum(failing + greatest(gone - replaced, 0))::int FROM (
    SELECT count(*) FILTER (WHERE NOT reports) AS gone,
           count(*) FILTER (WHERE reports AND started_at > first_gone) AS replaced,
           count(*) FILTER (WHERE reports AND active AND problem IS NOT NULL) AS failing,
           bool_or(reports AND active AND problem IS NULL) AS works
    FROM (SELECT *, min(reported_at) FILTER (WHERE NOT reports) OVER (PARTITION BY name) AS first_gone FROM (
        SELECT *, reported_at >= now() - interval '{STALE_S} s' AS reports FROM process_status WHERE program = 'bridge'
    ) AS p) AS p GROUP BY name
) AS b HAVING bool_or(works)
"""  # noqa: S608
"""How many bridges stopped reporting without being stopped, and were not replaced by one of their name that started
later, or are active and not ready. No row while no bridge works."""
_TIMEOUT_S = 4.0
_CLOSE_S = 2.0
_LONGEST_TEXT = 500
_SESSION = {"application_name": "fleet-status", "synchronous_commit": "off"}


StatusColumn = Literal[
    "readings_per_s",
    "commit_mean_s",
    "commit_p99_s",
    "waiting",
    "capacity",
    "lag_s",
    "quarters_behind_s",
    "dirty_quarters",
    "certificate_days",
    "disk_days",
]
"""A figure in `process_status`; the comments of the table say what it is."""
FIGURES: tuple[StatusColumn, ...] = get_args(StatusColumn)


class Status(NamedTuple):
    """The state of a process."""

    active: bool
    """False in standby."""
    problem: str | None
    """Why it is not ready."""
    figures: Mapping[StatusColumn, float | None] = {}
    """Those that it has."""


_OWN = ("program", "instance", "name", "version", "started_at")
_COLUMNS = (*_OWN, "active", "problem", *FIGURES)
_REPORT = f"""
INSERT INTO process_status ({", ".join(_COLUMNS)})
VALUES ({", ".join(f"${n}" for n in range(1, len(_COLUMNS) + 1))})
ON CONFLICT (program, instance) DO UPDATE SET reported_at = now(),
    {", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[2:])}
"""  # noqa: S608
_END = "DELETE FROM process_status WHERE program = $1 AND instance = $2 AND started_at = $3"


def instance_of(port: int) -> str:
    """The key of the process whose HTTP server has this port, by which processes of one host differ."""
    return f"{socket.gethostname()}:{port}"


@contextlib.asynccontextmanager
async def reporting(
    url: str, program: Program, port: int, look: Callable[[], Status], *, name: str | None = None
) -> AsyncIterator[None]:
    """Report what `look` returns while the block runs; on exit remove the row: the process has ended in order.

    `port` is that of its HTTP server.
    """
    reporter = _Reporter(url, (program, instance_of(port), name, VERSION, datetime.now(UTC)), look)
    running = asyncio.create_task(reporter.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await reporter.end()


class _Reporter:
    """Reports for one process."""

    def __init__(
        self, url: str, own: tuple[Program, str, str | None, str, datetime], look: Callable[[], Status]
    ) -> None:
        self._url = url
        self._own = own
        self._look = look
        self._connection: Connection | None = None
        self._is_failing = False

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                with asking():
                    await self._report()
                self._is_failing = False
            except (StoreUnavailable, Misconfigured) as error:
                self._drop()
                if not self._is_failing:
                    log.info("status not reported", reason=str(error))
                self._is_failing = True
            except Exception:
                self._drop()
                log.exception("status not reported")
            await asyncio.sleep(EVERY_S)

    async def _report(self) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await open_session(self._url, _TIMEOUT_S, _SESSION)
        active, problem, figures = self._look()
        shown = None if problem is None else problem.replace("\0", "")[:_LONGEST_TEXT]
        await self._connection.execute(_REPORT, *self._own, active, shown, *map(figures.get, FIGURES))

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def end(self) -> None:
        """Remove the row, if the database responds at once, and close the session."""
        program, instance, _, _, started_at = self._own
        with contextlib.suppress(StoreUnavailable, Misconfigured), asking():
            async with asyncio.timeout(_CLOSE_S):
                if self._connection is not None:
                    await self._connection.execute(_END, program, instance, started_at)
        self._drop()
