"""Makes sure that what is acknowledged is on the synchronous standby, if the server has one.

A COMMIT that waits for the standby can be cancelled: by the client's timeout, by an administrator, or by a crash of the
server. Then the transaction is committed on the primary alone. The server reports success with a warning, and a retry
finds the rows, which look stored: both must not be acknowledged before the standby has them.
"""

import asyncpg

from bridge.errors import StoreUnavailable
from bridge.store.session import Connection

# A transaction that writes to the log waits until the standby has the log up to its end, and with it every earlier
# transaction; one that writes nothing waits for nothing. Without a standby nothing is written.
_SQL = "SELECT pg_logical_emit_message(true, 'fleet', '') WHERE current_setting('synchronous_standby_names') <> ''"
_WAIT = "SyncRepWaitForLSN"


async def confirm(connection: Connection) -> None:
    """Wait until the standby has everything that can be read here. For a batch that may have written nothing."""
    await connection.execute(_SQL)


class Confirmations:
    """The warnings of a connection that a COMMIT did not wait for the standby."""

    def __init__(self) -> None:
        self._is_missing = False

    def hear(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        """Look at a notice of the server."""
        # Its function, because its text is in the server's language and it has no SQLSTATE of its own.
        self._is_missing = self._is_missing or message.server_source_function == _WAIT

    def require(self) -> None:
        """Raise `StoreUnavailable` if there was such a warning since the last call."""
        is_missing, self._is_missing = self._is_missing, False
        if is_missing:
            raise StoreUnavailable("the synchronous standby did not confirm a commit")
