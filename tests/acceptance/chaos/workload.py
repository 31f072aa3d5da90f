"""What the publisher sends: seeded messages, good and bad, each with what must become of it.

The expectations are made here, from the same values as the payload and without the bridge's code. Energies are
multiples of 0.25 kWh, so that sums are exact. Readings lie around yesterday's midnight: two partitions.
"""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from bridge.contract import KINDS

UNSTORABLE_SOC = 66.625
"""A value that the wire takes and the chaos database refuses (a trigger of the harness divides by zero)."""

Doc = dict[str, Any]
Door = Literal["mqtt", "http"]
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
    """One message; `items` says of each element `[kind, device, ts, values, extra]` or `["reject", reason, key]`.

    The values are by the names of the contract.
    """

    n: int
    cycle: int
    topic: str
    payload: bytes
    items: list[list[Any]]
    wants_receipt: bool
    doors: tuple[Door, ...]
    """HTTP knows no topic, so only messages without poison go through it, some through both at once."""


class Workload:
    """Message n of cycle c is the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._n = 0

    def messages(self, cycle: int, count: int) -> Iterator[Message]:
        """`count` messages of the cycle's own devices."""
        source = _Source(random.Random(f"{self._seed}:{cycle}"), cycle)
        for _ in range(count):
            topic, payload, items = source.next()
            self._n += 1
            wants_receipt = source.rng.random() < 0.4
            yield Message(self._n, cycle, topic, payload, items, wants_receipt, source.doors(items))

    def sentinel(self, cycle: int) -> Message:
        """A reading behind all others in the queue: its receipt says that the queue has drained."""
        self._n += 1
        doc = _vehicle(random.Random(self._n), f"C{cycle}-S", datetime.now(UTC))
        return Message(self._n, cycle, _topic("vehicle", f"C{cycle}-S"), _dump(doc), [item_of(doc)], True, ("mqtt",))


class _Source:
    def __init__(self, rng: random.Random, cycle: int) -> None:
        self.rng = rng
        self._cycle = cycle
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        self._from = midnight - timedelta(seconds=rng.randrange(5, 60))
        self._ticks: dict[str, int] = {}
        self._singles: list[tuple[str, Doc]] = []
        self._all: list[tuple[str, bytes, list[list[Any]]]] = []
        self._marks = 0

    def next(self) -> tuple[str, bytes, list[list[Any]]]:
        form = self.rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        if form in ("repeat", "conflict") and not self._singles:
            form = "single"
        made: tuple[str, bytes, list[list[Any]]] = getattr(self, f"_{form}")()
        self._all.append(made)
        return made

    def doors(self, items: list[list[Any]]) -> tuple[Door, ...]:
        draw = self.rng.random()
        if draw < 0.75 or any(item[0] == "reject" for item in items):
            return ("mqtt",)
        return ("http",) if draw < 0.9 else ("mqtt", "http")

    # -- good ones

    def _single(self) -> tuple[str, bytes, list[list[Any]]]:
        kind, doc = self._reading()
        self._singles.append((kind, doc))
        return _topic_of(doc), _dump(doc), [item_of(doc)]

    def _extra(self) -> tuple[str, bytes, list[list[Any]]]:
        _, doc = self._reading()
        doc["firmware"] = {"version": f"1.{self.rng.randrange(9)}", "flags": [None, True, "é"]}
        return _topic_of(doc), _dump(doc), [item_of(doc)]

    def _partial(self) -> tuple[str, bytes, list[list[Any]]]:
        """Not every measure, and a null here and there, which is the same."""
        kind, doc = self._reading()
        measures = [name for name in doc if name not in (f"{kind}Id", "timestamp")]
        for name in self.rng.sample(measures, self.rng.randrange(1, len(measures))):
            if self.rng.random() < 0.5:
                doc[name] = None
            else:
                del doc[name]
        return _topic_of(doc), _dump(doc), [item_of(doc)]

    def _bad_gauge(self) -> tuple[str, bytes, list[list[Any]]]:
        """A sensor that says that it does not know: the reading is kept without it, and what it said beside it."""
        kind, doc = self._reading()
        gauge = "soc" if kind == "vehicle" else "voltage"
        said = self.rng.choice([65535, -127, "unknown", True, [1]])
        item = item_of({**doc, gauge: None, "refused": {gauge: said}})
        return _topic_of(doc), _dump({**doc, gauge: said}), [item]

    def _damaged_backlog(self) -> tuple[str, bytes, list[list[Any]]]:
        """An array that is no JSON as a whole: each element is worth what it is worth by itself."""
        docs = self._several()
        items = [item_of(doc) for doc in docs]
        texts = [_dump(doc) for doc in docs]
        at, mark = self.rng.randrange(len(docs)), self._mark()
        bad = self.rng.choice(["nan", "-inf", ".5", "50.", "+50", "050", "1,5"])
        texts[at] = texts[at][:-1] + f', "mark": "{mark}", "x": {bad}}}'.encode()
        items[at] = ["reject", "not_json", reject_key(texts[at])]
        return _topic_of(docs[0]), b"[" + b", ".join(texts) + self.rng.choice([b"]", b",]", b"]\0"]), items

    def _backlog(self) -> tuple[str, bytes, list[list[Any]]]:
        docs = self._several()
        return _topic_of(docs[0]), _dump(docs), [item_of(doc) for doc in docs]

    def _repeat(self) -> tuple[str, bytes, list[list[Any]]]:
        return self.rng.choice(self._all)

    def _conflict(self) -> tuple[str, bytes, list[list[Any]]]:
        kind, doc = self.rng.choice(self._singles)
        energy = "kwhDeliveredDc" if kind == "vehicle" else "kwhConsumedAc"
        other = {**doc, energy: doc[energy] + self.rng.randrange(1, 9) * 0.25}
        return _topic_of(other), _dump(other), [item_of(other)]

    # -- bad ones

    def _poison(self) -> tuple[str, bytes, list[list[Any]]]:
        _, doc = self._reading()
        topic, mark = _topic_of(doc), self._mark()
        if self.rng.random() < 0.4:
            payload = self.rng.choice([b"not json %s", b'{"vehicleId": "%s', b"\0\xff\xfe %s"]) % mark.encode()
            return topic, payload, [["reject", "not_json", reject_key(payload)]]
        bad, reason = self._spoilt(doc, mark)
        return topic, _dump(bad), [["reject", reason, reject_key(_dump(bad))]]

    def _poisoned_backlog(self) -> tuple[str, bytes, list[list[Any]]]:
        """Bad elements at random positions among good ones."""
        docs: list[Any] = list(self._several())
        topic = _topic_of(docs[0])
        items = [item_of(doc) for doc in docs]
        for at in self.rng.sample(range(len(docs)), self.rng.randrange(1, 3)):
            docs[at], reason = self._spoilt(docs[at], self._mark())
            items[at] = ["reject", reason, reject_key(_dump(docs[at]))]
        return topic, _dump(docs), items

    def _unstorable(self) -> tuple[str, bytes, list[list[Any]]]:
        """Good ones around one that only the database refuses."""
        docs = self._several("vehicle")
        at = self.rng.randrange(len(docs))
        docs[at]["soc"] = UNSTORABLE_SOC
        items = [item_of(doc) for doc in docs]
        items[at] = ["reject", "unstorable", reject_key(_dump(docs[at]))]
        return _topic_of(docs[0]), _dump(docs), items

    def _spoilt(self, doc: Doc, mark: str) -> tuple[Any, str]:
        energy = "kwhDeliveredDc" if "vehicleId" in doc else "kwhConsumedAc"
        device = "vehicleId" if "vehicleId" in doc else "meterId"
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        without = {name: doc[name] for name in (device, "timestamp")}
        return self.rng.choice(
            [
                ({**without, "mark": mark}, "invalid_field"),
                ({**doc, energy: 1001, "mark": mark}, "invalid_field"),
                ({**doc, energy: str(doc[energy]), "mark": mark}, "invalid_field"),
                ({**doc, device: f"C{self._cycle}-X", "mark": mark}, "device_mismatch"),
                ({**doc, "timestamp": tomorrow, "mark": mark}, "timestamp_out_of_range"),
                ({**doc, "vehicleId": "EV", "meterId": "M", device: doc[device], "mark": mark}, "not_a_reading"),
                ({**doc, energy: [doc[energy]], "mark": mark}, "invalid_field"),
                (mark, "not_a_reading"),
            ]
        )

    def _mark(self) -> str:
        """Makes each bad one different from all others, and says of which cycle it is."""
        self._marks += 1
        return f"C{self._cycle}-poison-{self._marks}"

    def _reading(self, kind: str | None = None) -> tuple[str, Doc]:
        kind = kind or self.rng.choice(["vehicle", "meter"])
        device = f"C{self._cycle}-{kind[0].upper()}{self.rng.randrange(_DEVICES)}"
        # A step back of seven and a step ahead of eight: late readings, no identity twice.
        tick = self._ticks[device] = self._ticks.get(device, -1) + 1
        at = self._from + timedelta(seconds=tick ^ 5, microseconds=self.rng.choice([0, 1, 250_000, 999_999]))
        return kind, (_vehicle if kind == "vehicle" else _meter)(self.rng, device, at)

    def _several(self, kind: str | None = None) -> list[Doc]:
        kind, first = self._reading(kind)
        id_name = f"{kind}Id"
        docs = [self._reading(kind)[1] for _ in range(self.rng.randrange(2, 12))]
        return [first, *({**doc, id_name: first[id_name], "timestamp": self._later(first)} for doc in docs)]

    def _later(self, first: Doc) -> str:
        device = first.get("vehicleId") or first["meterId"]
        tick = self._ticks[device] = self._ticks[device] + 1
        return (self._from + timedelta(seconds=tick ^ 5)).isoformat()


def _vehicle(rng: random.Random, device: str, at: datetime) -> Doc:
    return {
        "vehicleId": device,
        "soc": rng.randrange(0, 400) * 0.25,
        "kwhDeliveredDc": rng.randrange(-40, 40) * 0.25,
        "batteryTemp": rng.randrange(-40, 160) * 0.5,
        **({} if rng.random() < 0.7 else {"kwhChargedRegister": rng.randrange(4_000_000) * 0.25}),
        "timestamp": at.isoformat(),
    }


def _meter(rng: random.Random, device: str, at: datetime) -> Doc:
    return {
        "meterId": device,
        "kwhConsumedAc": rng.randrange(-40, 40) * 0.25,
        "voltage": rng.randrange(400, 500) * 0.5,
        **({} if rng.random() < 0.7 else {"kwhImportRegister": rng.randrange(4_000_000) * 0.25}),
        "timestamp": at.isoformat(),
    }


def item_of(doc: Doc) -> list[Any]:
    """The expectation that this reading is stored: `[kind, device, ts, values, extra]`, the values by name."""
    kind = "vehicle" if "vehicleId" in doc else "meter"
    names = MEASURES[kind]
    known = {f"{kind}Id", "timestamp", *names}
    extra = {name: value for name, value in doc.items() if name not in known}
    values = {name: float(doc[name]) for name in names if doc.get(name) is not None}
    return [kind, doc[f"{kind}Id"], _utc(doc["timestamp"]), values, extra or None]


MEASURES = {kind.name: {measure.name: measure.column for measure in kind.measures} for kind in KINDS}
"""Of each kind the contract's names, and the columns in which they lie."""


def reject_key(payload: bytes) -> str:
    """The same for the same rejected content, however it was written down again."""
    try:
        document = json.loads(payload, parse_int=float)
    except ValueError:
        return payload.decode("latin-1")
    if isinstance(document, dict) and isinstance(document.get("timestamp"), str):
        document["timestamp"] = _utc(document["timestamp"])
    return json.dumps(document, sort_keys=True)


def _utc(timestamp: str) -> str:
    return datetime.fromisoformat(timestamp).astimezone(UTC).isoformat()


def _topic(kind: str, device: str) -> str:
    return f"fleet/{kind}/{device}/telemetry"


def _topic_of(doc: Doc) -> str:
    return _topic("vehicle", doc["vehicleId"]) if "vehicleId" in doc else _topic("meter", doc["meterId"])


def _dump(document: Any) -> bytes:
    return json.dumps(document).encode()
