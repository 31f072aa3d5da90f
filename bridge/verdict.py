"""What becomes of each item of a batch, given what the history holds already. Pure.

The identity of a reading is (device, timestamp). The first with an identity stays, whether it lies in the history
or stands earlier in the batch; an equal one after it is a duplicate, another one a conflict.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from bridge.delivery import Item, Kept, Outcome
from bridge.errors import Reason, Rejected, Source
from bridge.reading import Kind, MeterReading, Reading, VehicleReading
from bridge.wire import encode, topic_of

CONFLICT = "timestamp: the device already has a reading of this time, with other values"

Known = dict[int, bool]
"""Index of an item whose identity is in the history: whether all its values are the same there."""


def presume_new(items: Sequence[Item]) -> tuple[list[Outcome], dict[Kind, list[Reading]]]:
    """The same as `sort_out` when every reading is new, for a fraction of its cost. The key refuses the rest."""
    vehicles: list[Reading] = [item for item in items if type(item) is VehicleReading]
    meters: list[Reading] = [item for item in items if type(item) is MeterReading]
    outcomes: list[Outcome] = [Kept.STORED] * len(items)
    if len(vehicles) + len(meters) < len(items):
        outcomes = [item if isinstance(item, Rejected) else Kept.STORED for item in items]
    return outcomes, {"vehicle": vehicles, "meter": meters}


def sort_out(
    items: Sequence[Item], known: Mapping[int, bool], source: Source
) -> tuple[list[Outcome], dict[Kind, list[Reading]]]:
    """One outcome per item, in order, and the readings to store, by kind."""
    first: dict[tuple[type, str, datetime], Reading] = {}
    outcomes: list[Outcome] = []
    for index, item in enumerate(items):
        if isinstance(item, Rejected):
            outcomes.append(item)
        elif known and index in known:
            outcomes.append(Kept.DUPLICATE if known[index] else refuse(item, "conflict", CONFLICT, source))
        else:
            identity = (type(item), item[0], item[1])
            winner = first.get(identity)
            if winner is None:
                first[identity] = item
            outcomes.append(Kept.STORED if winner is None else _repeated(winner, item, source))
    fresh: dict[Kind, list[Reading]] = {"vehicle": [], "meter": []}
    for reading in first.values():
        fresh[reading.kind].append(reading)
    return outcomes, fresh


def _repeated(winner: Reading, item: Reading, source: Source) -> Outcome:
    return Kept.DUPLICATE if winner == item else refuse(item, "conflict", CONFLICT, source)


def any_repeated(outcomes: Sequence[Outcome]) -> bool:
    """Whether the batch met an identity that was there before it or twice in it."""
    return any(o is Kept.DUPLICATE or (isinstance(o, Rejected) and o.reason == "conflict") for o in outcomes)


def refuse(reading: Reading, reason: Reason, detail: str, source: Source) -> Rejected:
    """A reading that decodes but cannot be stored: its identity is taken, or only the database refuses it."""
    topic = topic_of(reading) if source == "mqtt" else None
    return Rejected(reason, detail[:500], encode(reading), source, topic, reading.device)
