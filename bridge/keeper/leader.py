"""The leader's session. Of several keepers of a database one has the lock, for as long as its session lives.

Duties run on this session only, so a keeper that has lost the lock can do nothing, whether it knows or not.
"""

import contextlib
from collections.abc import AsyncIterator

from bridge.settings.keeper import KeeperSettings
from bridge.store.database_errors import asking
from bridge.store.migrate import require_applied
from bridge.store.pooler import require_own_session
from bridge.store.session import Connection, milliseconds, open_session, take_lock

_LOCK_SPACE = 0x6B70


@contextlib.asynccontextmanager
async def leading(settings: KeeperSettings) -> AsyncIterator[Connection]:
    """The session with the lock, which ends with the block.

    Raises `LeadershipLost` when another keeper has the lock, `StoreUnavailable`, or `Misconfigured`.
    """
    silence = milliseconds(settings.keeper_timeout_s)
    session = {
        "application_name": "fleet-keeper",
        "lock_timeout": f"{settings.keeper_lock_timeout_ms}",
        # Every duty reads the history by key; new partitions have no statistics, and a scan would look cheap.
        "enable_seqscan": "off",
        # The order of the key saves a sort of each quarter hour, which a bitmap of its readings needs.
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        # A keeper that is frozen must neither keep the lock nor hold those of an open transaction.
        "idle_session_timeout": silence,
        "idle_in_transaction_session_timeout": silence,
    }
    with asking():
        connection = await open_session(settings.database_url, settings.keeper_timeout_s, session)
    try:
        await require_own_session(connection, settings.database_url)
        with asking():
            await require_applied(connection)
            await take_lock(connection, _LOCK_SPACE, "keeper", "another keeper leads")
        yield connection
    finally:
        connection.terminate()
