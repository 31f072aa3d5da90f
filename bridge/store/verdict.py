"""Determines the outcome of each item of a batch, given the identities in the history. Pure.

The identity of a reading is (device, timestamp). The first reading with an identity, in the history or earlier in the
batch, is stored; a later one with equal values is a duplicate, one with other values a conflict.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from bridge.contract import KINDS, Kind
from bridge.delivery import Item, Kept, KeptWithWarnings, Outcome, kept_as
from bridge.errors import Reason, Rejected
from bridge.formats.contract_json import encode, topic_of
from bridge.reading import Flagged, Reading, same_values
from bridge.store.ratings import Ratings

HTTP = "http"
"""The source of readings without a topic."""
CONFLICT = "timestamp: a reading of the device with this timestamp and other values is already stored"

Known = dict[int, bool]
"""By index of an item whose identity is in the history: whether all its values equal the stored ones."""
Fresh = dict[Kind, list[Reading]]
"""The readings to store, by kind."""
Identity = tuple[Kind, str, datetime]
NOTHING_FRESH: Fresh = {kind: [] for kind in KINDS}


def presume_new(items: Sequence[Item]) -> tuple[list[Outcome], Fresh]:
    """The result of `sort_out` if every reading is new, at lower cost. The primary key detects the other case."""
    fresh = {kind: [item for item in items if item.kind is kind] for kind in KINDS}
    outcomes: list[Outcome] = [Kept.STORED] * len(items)
    if sum(map(len, fresh.values())) < len(items):
        outcomes = [item if isinstance(item, Rejected) else Kept.STORED for item in items]
        for item in items:
            if isinstance(item, Flagged):
                fresh[item.reading.kind].append(item.reading)
    return outcomes, fresh


def sort_out(items: Sequence[Item], known: Mapping[int, bool], source: str) -> tuple[list[Outcome], Fresh]:
    """Return one outcome per item, in order, and the readings to store."""
    first: dict[Identity, Reading] = {}
    outcomes: list[Outcome] = []
    for index, item in enumerate(items):
        reading = reading_of(item)
        if reading is None:
            assert isinstance(item, Rejected)
            outcomes.append(item)
        elif known and index in known:
            outcomes.append(Kept.DUPLICATE if known[index] else refuse(reading, "conflict", CONFLICT, source))
        else:
            identity = identity_of(reading)
            winner = first.get(identity)
            if winner is None:
                first[identity] = reading
            outcomes.append(Kept.STORED if winner is None else _repeated(winner, reading, source))
    fresh: Fresh = {kind: [] for kind in KINDS}
    for reading in first.values():
        fresh[reading.kind].append(reading)
    return outcomes, fresh


def reading_of(item: Item) -> Reading | None:
    """The reading that an item is or holds; None when it was rejected."""
    if isinstance(item, Flagged):
        return item.reading
    return None if isinstance(item, Rejected) else item


def identity_of(reading: Reading) -> Identity:
    """Kind, device and device time."""
    return reading.kind, reading[0], reading[1]


def _repeated(winner: Reading, reading: Reading, source: str) -> Outcome:
    return Kept.DUPLICATE if same_values(winner, reading) else refuse(reading, "conflict", CONFLICT, source)


def any_repeated(outcomes: Sequence[Outcome]) -> bool:
    """Whether an identity of the batch was already in the history or occurs twice in the batch."""
    return any(o is Kept.DUPLICATE or (isinstance(o, Rejected) and o.reason == "conflict") for o in outcomes)


def with_warnings(items: Sequence[Item], outcomes: list[Outcome], readings: Fresh, ratings: Ratings) -> list[Outcome]:
    """Add the warnings of decoding and of implausible energy to the outcomes of stored readings and duplicates.

    `readings` are the readings of all items, by kind.
    """
    implausible = [reading for kind, own in readings.items() for reading in ratings.implausible(kind, own)]
    if not implausible and not any(type(item) is Flagged for item in items if item.kind is None):
        return outcomes
    suspects = set(map(id, implausible))
    warned = list(outcomes)
    for n, item in enumerate(items):
        if id(item) in suspects or type(item) is Flagged:
            warned[n] = _warned(item, outcomes[n], suspects, ratings)
    return warned


def _warned(item: Item, outcome: Outcome, suspects: set[int], ratings: Ratings) -> Outcome:
    kept, reading = kept_as(outcome), reading_of(item)
    if kept is None or reading is None:
        return outcome
    warnings = item.warnings if isinstance(item, Flagged) else ()
    if id(reading) in suspects:
        warnings += (ratings.warning(reading),)
    return KeptWithWarnings(kept, warnings) if warnings else outcome


def refuse(reading: Reading, reason: Reason, detail: str, source: str) -> Rejected:
    """Reject a decoded reading that cannot be stored: its identity is in use, or only the database refuses it."""
    topic = None if source == HTTP else topic_of(reading)
    return Rejected(reason, detail[:500], encode(reading), topic, reading.device)
