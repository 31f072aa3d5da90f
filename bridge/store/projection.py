"""The interface of a projection: a table that a transaction updates from its new rows of the history. Pure.

A projection picks the readings that concern it, and has an SQL statement that writes them. Both ways of storing a batch
(COPY, and one call for a few readings) pass it exactly the rows that it picked, as a FROM item with the table's
columns, after they were stored in the history and in the same transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from bridge.contract import Measure
from bridge.reading import Reading
from bridge.store.tables import Table


class Picked(NamedTuple):
    """The positions of the readings that concern a projection, and how many times its statement runs over them."""

    positions: list[int]
    rounds: int


class Projection(Protocol):
    """A table of each kind that is derived from the history."""

    name: str
    """Part of the name of the temporary table through which its rows are written."""
    is_of_late: bool
    """Whether only late readings concern it: it is skipped for a batch without any."""

    def pick(self, readings: Sequence[Reading], late_before: datetime | None) -> Picked:
        """Pick from readings of one kind, which are in the order of device and time.

        Readings before `late_before` are late; None means that it is not known yet.
        """
        ...

    def sql(self, table: Table, staged: str, measures: Sequence[Measure], *, rounds: bool) -> str:
        """The statement that writes the picked rows of the FROM item `staged`. It locks rows in the order of the key.

        The rows have no other measures than these. With `rounds` it runs several times over the same rows and writes
        the next row of each device each time.
        """
        ...
