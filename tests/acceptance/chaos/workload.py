"""What the publisher sends: seeded messages, good and bad, each with what must become of it.

Readings lie around yesterday's midnight: two partitions.
"""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from bridge.contract import KIND_OF
from bridge.errors import Reason
from bridge.reading import format_timestamp
from simulator.message import CONTESTED, EXPECTATIONS, READINGS, STORED, Item, expectation

UNSTORABLE_SOC = 66.625
"""A value that the wire takes and the chaos database refuses (a trigger of the harness divides by zero)."""

ENOUGH = 20
"""Messages among which surely is one whose reading comes once only: some are sent again, or over HTTP, too."""

Doc = dict[str, Any]
Protocol = Literal["mqtt", "http"]
_DEVICES = 12
_WEIGHTS = {
    "single": 44,
    "partial": 10,
    "bad_gauge": 4,
    "backlog": 9,
    "damaged_backlog": 4,
    "extra": 4,
    "repeat": 6,
    "conflict": 4,
    "poison": 7,
    "poisoned_backlog": 6,
    "unstorable": 3,
}


class Message(NamedTuple):
    """One message, of each of its elements what must become of it, and over which ways it goes."""

    kind: str
    device: str
    items: list[Item]
    payload: bytes
    is_array: bool = False
    wants_receipt: bool = False
    protocols: tuple[Protocol, ...] = ("mqtt",)
    """HTTP knows no topic, so only messages without poison go over it, some both ways at once."""

    @property
    def topic(self) -> str:
        return KIND_OF[self.kind].topic(self.device)


class Workload:
    """A cycle's messages are the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def messages(self, cycle: int, count: int) -> Iterator[Message]:
        """`count` messages of the cycle's own devices."""
        source = _Source(random.Random(f"{self._seed}:{cycle}"), cycle)
        for _ in range(count):
            message = source.next()
            yield message._replace(wants_receipt=source.rng.random() < 0.4, protocols=source.protocols(message))

    def sentinel(self, cycle: int) -> Message:
        """A reading behind all others in the queue: its receipt says that the queue has drained."""
        doc = _vehicle(random.Random(cycle), sentinel_of(cycle), datetime.now(UTC))
        return _single(doc)._replace(wants_receipt=True)


def sentinel_of(cycle: int) -> str:
    """The vehicle that sends a cycle's last message."""
    return f"C{cycle}-S"


class _Source:
    def __init__(self, rng: random.Random, cycle: int) -> None:
        self.rng = rng
        self._cycle = cycle
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        self._from = midnight - timedelta(seconds=rng.randrange(5, 60))
        self._ticks: dict[str, int] = {}
        self._singles: list[Doc] = []
        self._all: list[Message] = []
        self._marks = 0

    def next(self) -> Message:
        form = self.rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        if form in ("repeat", "conflict") and not self._singles:
            form = "single"
        made: Message = getattr(self, f"_{form}")()
        self._all.append(made)
        return made

    def protocols(self, message: Message) -> tuple[Protocol, ...]:
        draw = self.rng.random()
        if draw < 0.75 or any(EXPECTATIONS[item.expect] not in READINGS for item in message.items):
            return ("mqtt",)
        return ("http",) if draw < 0.9 else ("mqtt", "http")

    # -- good ones

    def _single(self) -> Message:
        doc = self._reading()
        self._singles.append(doc)
        return _single(doc, CONTESTED)

    def _extra(self) -> Message:
        doc = self._reading()
        doc["firmware"] = {"version": f"1.{self.rng.randrange(9)}", "flags": [None, True, "é"]}
        return _single(doc)

    def _partial(self) -> Message:
        """Not every measure, and a null here and there, which is the same."""
        doc = self._reading()
        measures = list(doc)[1:-1]
        for name in self.rng.sample(measures, self.rng.randrange(1, len(measures))):
            if self.rng.random() < 0.5:
                doc[name] = None
            else:
                del doc[name]
        return _single(doc)

    def _bad_gauge(self) -> Message:
        """A sensor that says that it does not know: the reading is kept without it, and what it said beside it."""
        doc = self._reading()
        doc["soc" if "soc" in doc else "voltage"] = self.rng.choice([65535, -127, "unknown", True, [1]])
        return _single(doc)

    def _damaged_backlog(self) -> Message:
        """An array that is no JSON as a whole: each element is worth what it is worth by itself."""
        docs = self._several()
        items = [Item(_dump(doc), STORED) for doc in docs]
        at, mark = self.rng.randrange(len(docs)), self._mark()
        bad = self.rng.choice(["nan", "-inf", ".5", "50.", "+50", "050", "1,5"])
        spoilt = items[at].payload[:-1] + f', "mark": "{mark}", "x": {bad}}}'.encode()
        items[at] = Item(spoilt, expectation("not_json"))
        return _array(docs[0], items, self.rng.choice([b"]", b",]", b"]\0"]))

    def _backlog(self) -> Message:
        docs = self._several()
        return _array(docs[0], [Item(_dump(doc), STORED) for doc in docs])

    def _repeat(self) -> Message:
        return self.rng.choice(self._all)

    def _conflict(self) -> Message:
        doc = self.rng.choice(self._singles)
        energy = _energy_of(doc)
        return _single({**doc, energy: doc[energy] + self.rng.randrange(1, 9) * 0.25}, CONTESTED)

    # -- bad ones

    def _poison(self) -> Message:
        doc, mark = self._reading(), self._mark()
        if self.rng.random() < 0.4:
            bad: Any = self.rng.choice([b"not json %s", b'{"vehicleId": "%s', b"\0\xff\xfe %s"]) % mark.encode()
            return _message(doc, bad, expectation("not_json"))
        bad, reason = self._spoilt(doc, mark)
        return _message(doc, _dump(bad), expectation(reason))

    def _poisoned_backlog(self) -> Message:
        """Bad elements at random positions among good ones."""
        docs = self._several()
        items = [Item(_dump(doc), STORED) for doc in docs]
        for at in self.rng.sample(range(len(docs)), self.rng.randrange(1, 3)):
            bad, reason = self._spoilt(docs[at], self._mark())
            items[at] = Item(_dump(bad), expectation(reason))
        return _array(docs[0], items)

    def _unstorable(self) -> Message:
        """Good ones around one that only the database refuses."""
        docs = self._several("vehicle")
        items = [Item(_dump(doc), STORED) for doc in docs]
        at = self.rng.randrange(len(docs))
        items[at] = Item(_dump({**docs[at], "soc": UNSTORABLE_SOC}), expectation("unstorable"))
        return _array(docs[0], items)

    def _spoilt(self, doc: Doc, mark: str) -> tuple[Any, Reason]:
        energy, device = _energy_of(doc), KIND_OF[_kind_of(doc)].id_field
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        without = {name: doc[name] for name in (device, "timestamp")}
        spoilt: list[tuple[Any, Reason]] = [
            ({**without, "mark": mark}, "invalid_field"),
            ({**doc, energy: 1001, "mark": mark}, "invalid_field"),
            ({**doc, energy: str(doc[energy]), "mark": mark}, "invalid_field"),
            ({**doc, device: f"C{self._cycle}-X", "mark": mark}, "device_mismatch"),
            ({**doc, "timestamp": tomorrow, "mark": mark}, "timestamp_out_of_range"),
            ({**doc, "vehicleId": "EV", "meterId": "M", device: doc[device], "mark": mark}, "not_a_reading"),
            ({**doc, energy: [doc[energy]], "mark": mark}, "invalid_field"),
            (mark, "not_a_reading"),
        ]
        return self.rng.choice(spoilt)

    def _mark(self) -> str:
        """Makes each bad one different from all others, and says of which cycle it is."""
        self._marks += 1
        return f"C{self._cycle}-poison-{self._marks}"

    def _reading(self, kind: str | None = None) -> Doc:
        kind = kind or self.rng.choice(["vehicle", "meter"])
        device = f"C{self._cycle}-{kind[0].upper()}{self.rng.randrange(_DEVICES)}"
        # A step back of seven and a step ahead of eight: late readings, no identity twice.
        tick = self._ticks[device] = self._ticks.get(device, -1) + 1
        at = self._from + timedelta(seconds=tick ^ 5, microseconds=self.rng.choice([0, 1, 250_000, 999_999]))
        return (_vehicle if kind == "vehicle" else _meter)(self.rng, device, at)

    def _several(self, kind: str | None = None) -> list[Doc]:
        first = self._reading(kind)
        kind = _kind_of(first)
        id_field = KIND_OF[kind].id_field
        docs = [self._reading(kind) for _ in range(self.rng.randrange(2, 12))]
        return [first, *({**doc, id_field: first[id_field], "timestamp": self._later(first)} for doc in docs)]

    def _later(self, first: Doc) -> str:
        device = first[KIND_OF[_kind_of(first)].id_field]
        tick = self._ticks[device] = self._ticks[device] + 1
        return format_timestamp(self._from + timedelta(seconds=tick ^ 5))


def _vehicle(rng: random.Random, device: str, at: datetime) -> Doc:
    return {
        "vehicleId": device,
        "soc": rng.randrange(0, 400) * 0.25,
        "kwhDeliveredDc": rng.randrange(-40, 40) * 0.25,
        "batteryTemp": rng.randrange(-40, 160) * 0.5,
        **({} if rng.random() < 0.7 else {"kwhChargedRegister": rng.randrange(4_000_000) * 0.25}),
        "timestamp": format_timestamp(at),
    }


def _meter(rng: random.Random, device: str, at: datetime) -> Doc:
    return {
        "meterId": device,
        "kwhConsumedAc": rng.randrange(-40, 40) * 0.25,
        "voltage": rng.randrange(400, 500) * 0.5,
        **({} if rng.random() < 0.7 else {"kwhImportRegister": rng.randrange(4_000_000) * 0.25}),
        "timestamp": format_timestamp(at),
    }


def _kind_of(doc: Doc) -> str:
    return "vehicle" if "vehicleId" in doc else "meter"


def _energy_of(doc: Doc) -> str:
    return "kwhDeliveredDc" if "vehicleId" in doc else "kwhConsumedAc"


def _message(doc: Doc, payload: bytes, expect: int) -> Message:
    """A message of one item in the name of the device that `doc` is of."""
    kind = _kind_of(doc)
    return Message(kind, doc[KIND_OF[kind].id_field], [Item(payload, expect)], payload)


def _single(doc: Doc, expect: int = STORED) -> Message:
    return _message(doc, _dump(doc), expect)


def _array(first: Doc, items: list[Item], end: bytes = b"]") -> Message:
    kind = _kind_of(first)
    payload = b"[" + b", ".join(item.payload for item in items) + end
    return Message(kind, first[KIND_OF[kind].id_field], items, payload, is_array=True)


def _dump(document: Any) -> bytes:
    """In the contract's form, in which the bridge keeps a reading that it could not store."""
    return json.dumps(document, separators=(",", ":")).encode()
