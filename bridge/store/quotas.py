"""How much of each device is stored in a day: its readings, their unknown fields, and its rejects. No I/O, no clock.

What is beyond a quota is not stored, and its sender is told; of rejects that are beyond it a sample is kept. The
amounts are those that one process has committed since its start.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from bridge.contract import KINDS, Kind
from bridge.delivery import Item, Kept, Outcome, kept_as
from bridge.errors import Rejected
from bridge.quota import Quota
from bridge.reading import Reading, jsonb_text
from bridge.store.verdict import Fresh, reading_of, refuse

DAY_S = 86_400
_MOST_PARTIES = 200_000
_REFILL_EVERY_S = 600.0
_device, _extra = itemgetter(0), itemgetter(-1)


NO_QUOTA = Quota(10**15, 10**15, 10**15, 10**15)


class Excess(NamedTuple):
    """What rejects have in common that are counted together and not kept. A text is empty where there is none."""

    source: str
    sender: str
    device: str
    reason: str


class Allowance:
    """What each of many parties may take: a day's amount at once, and then as much as that day's pace gives."""

    def __init__(self, per_day: float) -> None:
        self.per_day = per_day
        self._used: dict[str, tuple[float, float]] = {}
        """How much of it is used up, and when that was so."""

    def left(self, party: str, now: float) -> float:
        """How much it may take."""
        entry = self._used.get(party)
        return self.per_day if entry is None else min(self.per_day, self.per_day - self._after(entry, now))

    def take(self, amounts: Mapping[str, float], now: float) -> None:
        """Use up amounts."""
        if len(self._used) > _MOST_PARTIES:
            self._forget(now)
        for party, amount in amounts.items():
            self._used[party] = self.per_day - self.left(party, now) + amount, now

    def exceeding(self, amounts: Mapping[str, float], now: float) -> list[str]:
        """The parties that may not take so much."""
        return [party for party, amount in amounts.items() if amount > self.left(party, now)]

    def _after(self, entry: tuple[float, float], now: float) -> float:
        return entry[0] - (now - entry[1]) * self.per_day / DAY_S

    def _forget(self, now: float) -> None:
        """Forget the parties that may take a day's amount; all of them if there are too many others."""
        kept = {party: entry for party, entry in self._used.items() if self._after(entry, now) > 0}
        self._used = kept if len(kept) <= _MOST_PARTIES // 2 else {}


class Counts:
    """An allowance of whole units, taken one at a time: for readings, so it costs next to nothing for each.

    It is refilled every ten minutes.
    """

    def __init__(self, per_day: float) -> None:
        self.per_day = per_day
        self._used: Counter[str] = Counter()
        self._most = 0.0
        """No party has used more than this; it is made exact only when that matters."""
        self._refilled_at: float | None = None

    def left(self, party: str, now: float) -> float:
        """How many units a party may take."""
        self._refill(now)
        return self.per_day - self._used[party]

    def take(self, parties: Iterable[str], count: int, now: float) -> None:
        """Use up a unit of each of `count` parties; the same one may occur several times."""
        self._refill(now)
        self._used.update(parties)
        self._most += count

    def suffices(self, count: int, now: float) -> bool:
        """Whether each party may take so many units."""
        if self._most + count > self.per_day:
            self._refill(now)
            self._most = max(self._used.values(), default=0.0)
        return self._most + count <= self.per_day

    def exceeding(self, amounts: Mapping[str, int], now: float) -> list[str]:
        """The parties that may not take so many."""
        return [party for party, amount in amounts.items() if amount > self.left(party, now)]

    def _refill(self, now: float) -> None:
        if self._refilled_at is None:
            self._refilled_at = now
        passed_s = now - self._refilled_at
        if passed_s < _REFILL_EVERY_S and len(self._used) <= _MOST_PARTIES:
            return
        refilled = passed_s * self.per_day / DAY_S
        kept = {party: used - refilled for party, used in self._used.items() if used > refilled}
        # Too many others are forgotten, so that what is remembered is bounded.
        self._used = Counter(kept) if len(kept) <= _MOST_PARTIES // 2 else Counter()
        self._refilled_at = now


class Quotas:
    """The quotas of one writer, and what its devices have used of them."""

    def __init__(self, quota: Quota) -> None:
        self.readings = {kind: Counts(quota.readings) for kind in KINDS}
        self.extra_bytes = {kind: Allowance(quota.extra_bytes) for kind in KINDS}
        self.rejects = Allowance(quota.rejects)
        self.reject_bytes = Allowance(quota.reject_bytes)
        self.not_kept: Counter[str] = Counter()
        """Rejects that were counted only, by reason."""


class Charge:
    """What one transaction takes of the quotas. They are charged by `committed`, so a retry takes nothing twice."""

    def __init__(self, quotas: Quotas, source: str, now: float) -> None:
        self._quotas = quotas
        self._source = source
        self._now = now
        self._readings: Mapping[Kind, Sequence[Reading]] = {}
        """Those that are stored if every one is."""
        self._extra: Mapping[Kind, Mapping[str, float]] = {}
        """The bytes of their unknown fields."""
        self._rejects: defaultdict[str, float] = defaultdict(float)
        self._reject_bytes: defaultdict[str, float] = defaultdict(float)
        self.excess: dict[Excess, tuple[int, int]] = {}
        """Rejects that are not kept: their number and bytes."""

    def admit(self, items: Sequence[Item], readings: Fresh) -> Sequence[Item]:
        """The items, with rejects instead of readings beyond the quotas. `readings` are those of the items, by kind."""
        beyond: set[tuple[Kind, str]] = set()
        self._readings, self._extra = readings, {kind: _extra_sizes(own) for kind, own in readings.items()}
        for kind, own in readings.items():
            counted, now = self._quotas.readings[kind], self._now
            if not counted.suffices(len(own), now):
                beyond.update((kind, device) for device in counted.exceeding(Counter(map(_device, own)), now))
            sizes = self._extra[kind]
            beyond.update((kind, device) for device in self._quotas.extra_bytes[kind].exceeding(sizes, now))
        return self._without(items, beyond) if beyond else items

    def _without(self, items: Sequence[Item], beyond: set[tuple[Kind, str]]) -> list[Item]:
        """Admit the readings of these devices one by one, as long as there is something left."""
        left = {
            (kind, device): [
                self._quotas.readings[kind].left(device, self._now),
                self._quotas.extra_bytes[kind].left(device, self._now),
            ]
            for kind, device in beyond
        }
        admitted: list[Item] = []
        for item in items:
            reading = reading_of(item)
            own = None if reading is None else left.get((reading.kind, reading.device))
            if reading is not None and own is not None:
                size = _extra_size(reading)
                if own[0] < 1 or own[1] < size:
                    admitted.append(self._refused(reading, "readings" if own[0] < 1 else "unknown fields"))
                    continue
                own[0] -= 1
                own[1] -= size
            admitted.append(item)
        return admitted

    def _refused(self, reading: Reading, what: str) -> Rejected:
        detail = f"the {what} of {reading.kind.name} {reading.device} exceed its quota of a day: send it again later"
        return refuse(reading, "quota_exceeded", detail, self._source)

    def sift(self, rejects: Sequence[Rejected]) -> list[Rejected]:
        """The rejects to keep; the others are counted in `excess`."""
        return [rejected for rejected in rejects if self._keeps(rejected)]

    def _keeps(self, rejected: Rejected) -> bool:
        owner, size = _owner(rejected, self._source), len(rejected.payload)
        party = "\0".join(owner)
        count, bytes_ = self._rejects[party] + 1, self._reject_bytes[party] + size
        if count <= self._quotas.rejects.left(party, self._now) and bytes_ <= self._quotas.reject_bytes.left(
            party, self._now
        ):
            self._rejects[party], self._reject_bytes[party] = count, bytes_
            return True
        excess = Excess(*owner, rejected.reason)
        messages, sum_ = self.excess.get(excess, (0, 0))
        self.excess[excess] = messages + 1, sum_ + size
        return False

    def committed(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> None:
        """Charge what is stored now; duplicates cost nothing."""
        if outcomes.count(Kept.STORED) < len(outcomes):
            stored: dict[Kind, list[Reading]] = {}
            for item, outcome in zip(items, outcomes, strict=True):
                if kept_as(outcome) is Kept.STORED and (reading := reading_of(item)) is not None:
                    stored.setdefault(reading.kind, []).append(reading)
            self._readings, self._extra = stored, {kind: _extra_sizes(own) for kind, own in stored.items()}
        for kind, own in self._readings.items():
            self._quotas.readings[kind].take(map(_device, own), len(own), self._now)
            self._quotas.extra_bytes[kind].take(self._extra[kind], self._now)
        self._quotas.rejects.take(self._rejects, self._now)
        self._quotas.reject_bytes.take(self._reject_bytes, self._now)
        for excess, (messages, _) in self.excess.items():
            self._quotas.not_kept[excess.reason] += messages


def _extra_sizes(readings: Sequence[Reading]) -> Mapping[str, float]:
    """The bytes of the unknown fields of each device that has some."""
    sizes: defaultdict[str, float] = defaultdict(float)
    if any(map(_extra, readings)):
        for reading in readings:
            if reading[-1]:
                sizes[reading[0]] += _extra_size(reading)
    return sizes


def _extra_size(reading: Reading) -> int:
    """Bytes of the unknown fields. What jsonb refuses is not stored, so it has no size."""
    try:
        return len(jsonb_text(reading[-1])) if reading[-1] else 0
    except ValueError:
        return 0


def _owner(rejected: Rejected, source: str) -> tuple[str, str, str]:
    """Whose quota a reject uses: source, sender and device.

    It is that of the device, unless the sender only claims to be it: then it is that of the key.
    """
    device = "" if rejected.reason == "forbidden" else (rejected.device or "")
    return source, rejected.sender or "", device
