"""The live rows that the last look has seen, serialized but for their ages. Pure.

A row knows the transaction that wrote it, so the changes since any earlier state can be told without a log of changes.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import NamedTuple

from api.changes import AsOf
from api.energy.quality import LONGEST_SILENCE
from api.stream.filters import Filter
from bridge.contract import KINDS, Kind


@dataclass(frozen=True, slots=True)
class Row:
    """The live row of a device."""

    kind: Kind
    id: str
    xmin: int
    body: str
    """The JSON object of the reading, without its closing brace."""
    reported_at: float
    """Device time of the reading, s since 1970."""
    silent_from: float
    """When the device is silent, unless another reading comes, s since 1970."""
    site: str | None

    def text(self, now: float) -> str:
        """The JSON object at this time, as an item of the live lists."""
        silent = "true" if self.is_silent(now) else "false"
        return f'{self.body},"silent":{silent},"ageSeconds":{now - self.reported_at:.3f}}}'

    def is_silent(self, now: float) -> bool:
        """Whether a reading is overdue."""
        return self.silent_from < now


class Declared(NamedTuple):
    """What the register declares about a device."""

    site: str | None = None
    interval_s: float | None = None


_UNDECLARED = Declared()
Key = tuple[str, str]
"""The name of a kind, and an id."""
Place = tuple[int, str]
"""After which row a page of a snapshot begins: the kind as its index in `KINDS`, and an id."""
FIRST: Place = (0, "")


class Mirror:
    """The rows by kind and id, with what the register declares about their devices."""

    def __init__(self, default_interval_s: float) -> None:
        self._default_interval_s = default_interval_s
        self._rows: dict[Kind, dict[str, Row]] = {kind: {} for kind in KINDS}
        self._sorted: dict[Kind, list[str]] = {}
        self._register: dict[Key, Declared] = {}
        self._silences: list[tuple[float, int, str]] = []
        self.register_mark = ""
        """Identifies the contents of the register: a viewer that saw another one cannot resume."""

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def take(self, kind: Kind, id_: str, xmin: int, body: str, reported_at: float) -> Row | None:
        """Take a row that was read; return it if it is new or has changed."""
        known = self._rows[kind].get(id_)
        if known is not None and known.xmin == xmin and known.body == body:
            return None
        row = self._declared(kind, id_, xmin, body, reported_at)
        if known is None:
            self._sorted.pop(kind, None)
        self._put(row)
        return row

    def keep(self, ids: Mapping[Kind, Iterable[str]]) -> None:
        """Forget the rows of all other devices."""
        for kind, rows in self._rows.items():
            kept = set(ids.get(kind, ()))
            self._rows[kind] = {id_: row for id_, row in rows.items() if id_ in kept}
        self._sorted.clear()

    def knows(self, kind: Kind, id_: str, xmin: int) -> bool:
        """Whether the row that this transaction wrote was taken."""
        known = self._rows[kind].get(id_)
        return known is not None and known.xmin == xmin

    def declare(self, register: dict[Key, Declared], now: float) -> tuple[list[Row], set[str]]:
        """Replace the register; return the rows that have another site or silence by it, and the sites they were at."""
        self._register = register
        text = repr((self._default_interval_s, sorted(register.items(), key=lambda item: item[0])))
        self.register_mark = blake2b(text.encode(), digest_size=6).hexdigest()
        changed: list[Row] = []
        left: set[str] = set()
        for row in list(self):
            declared = self._declared(row.kind, row.id, row.xmin, row.body, row.reported_at)
            if declared != row:
                self._put(declared)
            if declared.site != row.site and row.site is not None:
                left.add(row.site)
            if declared.site != row.site or declared.is_silent(now) != row.is_silent(now):
                changed.append(declared)
        return changed, left

    def forget_silences_until(self, now: float) -> list[Row]:
        """The devices that have become silent since the last call."""
        fallen: list[Row] = []
        while self._silences and self._silences[0][0] < now:
            silent_from, kind, id_ = heappop(self._silences)
            row = self._rows[KINDS[kind]].get(id_)
            if row is not None and row.silent_from == silent_from:
                fallen.append(row)
        return fallen

    def __iter__(self) -> Iterator[Row]:
        for rows in self._rows.values():
            yield from rows.values()

    def since(self, earlier: AsOf, now: datetime, watched: Filter) -> list[Row]:
        """The watched rows that were written, or whose devices became silent, after an earlier state."""
        then, at = earlier.at.timestamp(), now.timestamp()
        return [
            row
            for row in self
            if (earlier.may_lack(row.xmin) or then <= row.silent_from < at) and watched.has(row.kind, row.id, row.site)
        ]

    def page(self, watched: Filter, after: Place, size: int) -> tuple[list[Row], Place | None]:
        """The next watched rows by kind and id, and the place after them; None when there are no more."""
        rows = list(islice(self._following(watched, after), size + 1))
        if len(rows) <= size:
            return rows, None
        return rows[:size], (KINDS.index(rows[size - 1].kind), rows[size - 1].id)

    def _following(self, watched: Filter, after: Place) -> Iterator[Row]:
        first, id_ = after
        for number, kind in enumerate(KINDS[first:], first):
            ids = self._ids(kind) if watched.ids is None else sorted(watched.ids & self._rows[kind].keys())
            start = bisect_right(ids, id_) if number == first else 0
            for n in range(start, len(ids)):
                row = self._rows[kind][ids[n]]
                if watched.has(kind, row.id, row.site):
                    yield row

    def _ids(self, kind: Kind) -> Sequence[str]:
        if kind not in self._sorted:
            self._sorted[kind] = sorted(self._rows[kind])
        return self._sorted[kind]

    def _declared(self, kind: Kind, id_: str, xmin: int, body: str, reported_at: float) -> Row:
        site, interval_s = self._register.get((kind.name, id_), _UNDECLARED)
        silent_from = reported_at + LONGEST_SILENCE * (interval_s or self._default_interval_s)
        return Row(kind, id_, xmin, body, reported_at, silent_from, site)

    def _put(self, row: Row) -> None:
        self._rows[row.kind][row.id] = row
        heappush(self._silences, (row.silent_from, KINDS.index(row.kind), row.id))
        # A device that reports every second leaves an entry each time, until the longest silence is over.
        if len(self._silences) > 4 * len(self) + 1_000:
            self._silences = [(each.silent_from, KINDS.index(each.kind), each.id) for each in self]
            heapify(self._silences)


def objects(rows: Iterable[tuple[Row, str]]) -> str:
    """The serialized rows as members of an event: a list for each kind."""
    lists: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    for row, text in rows:
        lists[row.kind].append(text)
    return ",".join(f"{json.dumps(kind.plural)}:[{','.join(texts)}]" for kind, texts in lists.items())
