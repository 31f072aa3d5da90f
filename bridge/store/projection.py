"""What a projection is: something that a transaction writes beside the history, from its new rows.

A projection picks the readings that concern it and gives the SQL that applies them. Both ways of storing a batch
(COPY, and the one call for a few readings) hand it exactly the rows that it picked, as a FROM item with the table's
columns, after the history has them and in the same transaction. Pure.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bridge.contract import Measure
from bridge.reading import Reading
from bridge.store.tables import Table


class Picked(NamedTuple):
    """Which readings concern a projection, by their positions, and how many times its statement runs over them."""

    positions: list[int]
    rounds: int


class Projection(Protocol):
    """One thing that is written beside the history."""

    name: str
    """Part of the name of the temporary table through which its rows go."""

    def pick(self, readings: Sequence[Reading]) -> Picked:
        """What concerns it of readings that are of one kind, in the order of device and time."""
        ...

    def sql(self, table: Table, staged: str, measures: Sequence[Measure], *, rounds: bool) -> str:
        """The statement that takes the picked rows from the FROM item `staged`. Locks rows in the order of the key.

        None of the rows has another measure than these. With `rounds` it is run several times over the same rows and
        takes of each device the next one each time.
        """
        ...
