"""Translates errors of asyncpg into those of `bridge.errors`. No other module of the bridge names asyncpg's errors.

The cause of an error determines the reaction: invalid values concern one reading, an outage is retried, and a statement
that the database does not understand or does not allow (SQLSTATE class 42) stops the program, as no retry can succeed.
"""

import asyncio
import contextlib
from collections.abc import Iterator

import asyncpg

from bridge.errors import Misconfigured, ReadOnlyDatabase, StoreUnavailable

FOREIGN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# Classes 22, 23 and 54 (too complex, too large): caused by the values, so a retry would not succeed.
_REFUSED = (
    asyncpg.exceptions.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
LOCKED = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
"""A lock was not obtained in time; a retry may succeed."""
_REMEDY = "compare the schema and the rights of this program's role; `python -m bridge migrate` updates both"
_DUPLICATE = "duplicate key value"
"""In the text of an XX000 by which a distributed table (Citus) passes on the 23505 of one of its servers."""
READ_ONLY = "the database is read-only: it is a replica, or a failover is in progress"
TRANSACTION_POOLING = (
    "FLEET_DATABASE_URL: a pooler gives the session to other clients between transactions; use a pool in session mode "
    "(PgBouncer: pool_mode = session), or connect to PostgreSQL directly"
)
_OF_TRANSACTION_POOLING = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""A prepared statement of another client, or the own one in another session."""
_READ_ONLY = (asyncpg.exceptions.TargetServerAttributeNotMatched, asyncpg.ReadOnlySQLTransactionError)


class Unstorable(Exception):
    """The database refuses these values (SQLSTATE class 22, 23 or 54), or they cannot be encoded."""


class AlreadyThere(Exception):
    """A row of the batch is in the history already."""


class TransactionOpen(StoreUnavailable):
    """The transaction of another session does not end; a retry may succeed."""


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """For writing readings. Raises `AlreadyThere`, `Unstorable`, `Misconfigured` for SQLSTATE class 42, and
    `StoreUnavailable` for all other errors.
    """
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise AlreadyThere from error
    except asyncpg.InternalServerError as error:
        if _DUPLICATE in str(error):
            raise AlreadyThere from error
        raise _unavailable(error) from error
    except asyncpg.CheckViolationError as error:
        if error.constraint_name:
            raise Unstorable(str(error)) from error
        raise StoreUnavailable(f"a partition is missing: {error}") from error
    except _REFUSED as error:
        raise Unstorable(str(error)) from error
    except FOREIGN as error:
        _refuse_url(error)
        if isinstance(error, ValueError):  # asyncpg's own DataError: it could not encode a value
            raise Unstorable(str(error)) from error
        raise _unavailable(error) from error


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """For queries and command lines. Raises `Misconfigured` for SQLSTATE class 42, and `StoreUnavailable` for outages.

    Raises `CancelledError` when the error has taken its place. Errors of values are not translated: in a query they
    are a bug of the program.
    """
    try:
        yield
    except _REFUSED:
        raise
    except FOREIGN as error:
        _refuse_url(error)
        if isinstance(error, ValueError):
            raise
        if _replaces_cancellation(error):
            raise asyncio.CancelledError from error
        raise _unavailable(error) from error


def _replaces_cancellation(error: BaseException) -> bool:
    """Whether this task was cancelled, and a clean-up then failed with this error, as it does when a session is lost
    at that moment.

    A loop that tries again after an outage would not end, and what waits for its end would wait, too.
    """
    earlier = error.__context__
    while earlier is not None and not isinstance(earlier, asyncio.CancelledError):
        earlier = earlier.__context__
    task = None if earlier is None else asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _refuse_url(error: Exception) -> None:
    """Raises `Misconfigured` when asyncpg cannot use the URL."""
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        raise Misconfigured(f"FLEET_DATABASE_URL: {error}") from error


def _unavailable(error: Exception) -> StoreUnavailable | Misconfigured:
    if isinstance(error, _READ_ONLY):
        return ReadOnlyDatabase(READ_ONLY)
    if isinstance(error, _OF_TRANSACTION_POOLING):
        return Misconfigured(TRANSACTION_POOLING)
    root = _root(error)
    text = f"{type(root).__name__}: {root}" if str(root) else type(root).__name__
    if isinstance(error, asyncpg.SyntaxOrAccessError):
        return Misconfigured(f"the database refuses a statement of this program ({text}); {_REMEDY}")
    return StoreUnavailable(text)


def _root(error: BaseException) -> BaseException:
    """The error of the server or of the network that the driver met first.

    When a connection is lost in a statement, the driver also fails to end its transaction, and raises that it "cannot
    switch to state 12".
    """
    root, seen = error, error
    while (earlier := seen.__cause__ or seen.__context__) is not None:
        if isinstance(earlier, (asyncpg.PostgresError, OSError)):
            root = earlier
        seen = earlier
    return root


def survives(error: StoreUnavailable) -> bool:
    """Whether the session can be used after the error: the server rolled back a transaction or lacked resources, or
    another session is the cause.
    """
    cause = error.__cause__
    if isinstance(error, TransactionOpen):
        return True
    return isinstance(cause, asyncpg.PostgresError) and (cause.sqlstate or "")[:2] in ("40", "53", "55")
