"""The database's errors as ours, in one place. No other module of the bridge names asyncpg's.

Whose fault an error is decides what happens: the data's fault concerns one reading, an outage passes, and a statement
that the database does not understand or does not allow is ours: it must stop the program, not be retried endlessly.
"""

import contextlib
from collections.abc import Iterator

import asyncpg

from bridge.errors import Misconfigured, StoreUnavailable

FOREIGN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# Classes 22, 23 and 54 (too complex, too large): the values are at fault, and trying again would not help.
_REFUSED = (
    asyncpg.exceptions.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
LOCKED = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
"""A lock could not be had in time; the same again may succeed."""
_REMEDY = "compare the schema and the rights of this program's role: `python -m bridge migrate` brings both up to date"


class Unstorable(Exception):
    """The database refuses these values (SQLSTATE class 22, 23 or 54), or they cannot even be sent."""


class AlreadyThere(Exception):
    """A row of the batch is in the history already."""


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """For what writes readings. Raises `AlreadyThere`, `Unstorable`, `Misconfigured` for class 42, which is ours, and
    `StoreUnavailable` for all that is neither the data's fault nor ours.
    """
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise AlreadyThere from error
    except asyncpg.CheckViolationError as error:
        if error.constraint_name:
            raise Unstorable(str(error)) from error
        raise StoreUnavailable(f"a partition is missing: {error}") from error
    except _REFUSED as error:
        raise Unstorable(str(error)) from error
    except FOREIGN as error:
        if isinstance(error, ValueError):  # asyncpg's own DataError: it could not encode a value
            raise Unstorable(str(error)) from error
        raise _unavailable(error) from error


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """For what reads, and for command lines. Raises `Misconfigured` for class 42, and `StoreUnavailable` for outages.

    Errors of values are left as they are: in a question they are a mistake of ours.
    """
    try:
        yield
    except _REFUSED:
        raise
    except FOREIGN as error:
        if isinstance(error, ValueError):
            raise
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> StoreUnavailable | Misconfigured:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, asyncpg.SyntaxOrAccessError):
        return Misconfigured(f"the database refuses a statement of this program ({text}); {_REMEDY}")
    return StoreUnavailable(text)


def survives(error: StoreUnavailable) -> bool:
    """Whether a session goes on after the error: the server rolled a transaction back, or had no room."""
    cause = error.__cause__
    return isinstance(cause, asyncpg.PostgresError) and (cause.sqlstate or "")[:2] in ("40", "53", "55")
