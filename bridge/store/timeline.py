"""Refuses a database that a failover has left behind.

A promoted standby begins a timeline with a higher number. The server that it replaced still accepts writes when it
comes back, but nobody reads them: a reading stored there is lost.
"""

from collections.abc import Mapping
from typing import NamedTuple

from bridge.errors import Unreachable
from bridge.store.database_errors import asking
from bridge.store.session import Connection, open_each

# The name of the segment that is written now begins with its timeline. `pg_control_checkpoint()` would have the earlier
# one until the first checkpoint after a promotion.
TIMELINE_SQL = "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4"
"""The timeline of a server that accepts writes; an error on a replica."""
_SQL = f"SELECT system_identifier, {TIMELINE_SQL} FROM pg_control_system()"  # noqa: S608


class Timeline(NamedTuple):
    """Where a server writes."""

    system: int
    """The identifier that a cluster and its standbys have in common."""
    number: int
    """One more with each promotion."""


class LeftBehind(Unreachable):
    """The server was replaced by another one, which this process has seen."""


class Fence:
    """The newest timeline that a process has seen. One instance lives as long as its writer."""

    def __init__(self) -> None:
        self._newest: Timeline | None = None

    def pass_through(self, found: Timeline) -> None:
        """Remember it. Raises `LeftBehind` for an earlier timeline, and for another cluster."""
        seen = self._newest
        if seen is not None and found.system != seen.system:
            raise LeftBehind(
                f"the database is another cluster ({found.system}) than before ({seen.system}): nothing is written to "
                "it; if it replaces the other one, restart this program"
            )
        if seen is not None and found.number < seen.number:
            raise LeftBehind(
                f"the database writes timeline {found.number}, but timeline {seen.number} exists: this server was "
                "replaced by a failover and must be rebuilt as a standby; nothing is written to it"
            )
        self._newest = found


async def open_newest(url: str, timeout_s: float, settings: Mapping[str, str], fence: Fence) -> Connection:
    """A session on the host that writes the newest timeline. Raises as `session.connect`, or `LeftBehind`."""
    sessions = await open_each(url, timeout_s, settings)
    try:
        found = [(await timeline_of(session), session) for session in sessions]
        newest, chosen = max(found, key=lambda each: each[0].number)
        fence.pass_through(newest)
    except BaseException:
        for session in sessions:
            session.terminate()
        raise
    for session in sessions:
        if session is not chosen:
            session.terminate()
    return chosen


async def timeline_of(connection: Connection) -> Timeline:
    """The timeline of a server that accepts writes. Raises `StoreUnavailable`."""
    with asking():
        row = await connection.fetchrow(_SQL)
    assert row is not None
    return Timeline(*row)
