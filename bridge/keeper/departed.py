"""The duty that removes the rows of processes that stopped reporting a day ago, such as those of old containers."""

from bridge.keeper.port import Duty
from bridge.status import KEPT_DAYS
from bridge.store.database_errors import asking
from bridge.store.session import Connection

EVERY_S = 600.0
_SQL = f"DELETE FROM process_status WHERE reported_at < now() - interval '{KEPT_DAYS} days'"  # noqa: S608


async def _run(connection: Connection) -> bool:
    with asking():
        await connection.execute(_SQL)
    return False


departed = Duty("departed", EVERY_S, _run)
