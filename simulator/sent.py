"""What a ledger says about energy: readings that are or must be stored, and the assignments of meters."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from bridge.contract import KIND_OF, Kind
from simulator import database
from simulator.database import Connection
from simulator.expected import expected_of, feeds_of
from simulator.figures import Assigned, Point, interval_kwh, register_kwh
from simulator.ledger_reader import Ledger
from simulator.local_time import us_of
from simulator.stored import Values

_EVER_US = 2**62


class Sent:
    """A ledger's devices by name. The database says only which of the unacknowledged readings are stored."""

    def __init__(self, connection: Connection, ledger: Ledger) -> None:
        self._connection, self._ledger = connection, ledger
        self._numbers: dict[str, int] = {name: number for number, (_, name) in enumerate(ledger.devices)}
        self._assignments: dict[str, list[Assigned]] = {}
        self._meters_of: dict[str | None, set[str]] = defaultdict(set)
        for meter, (since, vehicles) in feeds_of(ledger).items():
            ends = [*since[1:], _EVER_US]
            self._assignments[meter] = [Assigned(*one) for one in zip(since, ends, vehicles, strict=True)]
            for vehicle in vehicles:
                self._meters_of[vehicle].add(meter)

    async def points(self, device: str) -> list[Point]:
        """The readings that are stored, or must be, in the order of time."""
        number = self._numbers[device]
        kind = KIND_OF[self._ledger.devices[number][0]]
        expected = expected_of(self._ledger, number, self._ledger.numbers_of(number))
        rows = await database.history(self._connection, kind, [device], database.EVER)
        history = {at: (json.loads(extra) if extra else None, *values) for _, at, extra, *values in rows}
        expected.decide(history)
        return [_point(kind, at, values) for at, values in expected.due(history.keys())]

    def assignments(self, meter: str) -> Sequence[Assigned]:
        """Whom a meter fed, in the order of time."""
        return self._assignments.get(meter, ())

    def meters_of(self, vehicle: str) -> list[str]:
        """The meters that have ever fed a vehicle."""
        return sorted(self._meters_of[vehicle])


def _point(kind: Kind, at: datetime, values: Values) -> Point:
    """A stored reading, of which only energy is of interest."""
    given = dict(zip(kind.measures, values[1:], strict=True))
    interval = next((value for m, value in given.items() if m.sort == "interval"), None)
    registers = {m.sign: value for m, value in given.items() if m.sort == "register" and value is not None}
    return Point(
        us_of(at),
        None if interval is None else interval_kwh(interval),
        register_kwh(registers[1]) if 1 in registers else None,
        register_kwh(registers[-1]) if -1 in registers else None,
    )
