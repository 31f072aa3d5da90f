"""Asks the database for its time."""

from bridge.clock import Clock, steady_s
from bridge.store.session import Connection

_SQL = "SELECT clock_timestamp()"


async def compare(connection: Connection, clock: Clock) -> None:
    """Compare this machine's clock with that of the database."""
    asked_at_s = steady_s()
    clock.compare(await connection.fetchval(_SQL), asked_at_s)
