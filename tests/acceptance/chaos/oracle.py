"""Compares the ledger with the database. It uses none of the bridge's code and knows none of its doings.

For each identity (device, time) the ledger has one or more variants of values. The history must hold exactly one
of them when any was acknowledged, and each other acknowledged variant must be kept once as a conflict.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import asyncpg

from tests.acceptance.chaos.ledger import Entry
from tests.acceptance.chaos.workload import MEASURES, reject_key

Identity = tuple[str, str, str]
"""kind, device, UTC time."""

Reject = tuple[str, str, str]
"""door, reason, content."""

_TOTALS = "SELECT {id}, count(*), sum({energy}) FROM {kind}_telemetry_history WHERE {id} LIKE $1 GROUP BY 1"
_REJECTS = "SELECT source, reason, payload FROM rejected_message WHERE position($1::bytea in payload) > 0"
_ENERGY = {"vehicle": "kwhDeliveredDc", "meter": "kwhConsumedAc"}
_LATE_WORD_S = 0.3


@dataclass
class Verdict:
    """What was found wrong, each thing by itself; `excused` is what only a broker that we killed had promised."""

    messages: int = 0
    readings: int = 0
    rejects: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    excused: int = 0

    @property
    def sound(self) -> bool:
        return not (self.lost or self.doubled or self.foreign or self.wrong)

    def __str__(self) -> str:
        found = {"lost": self.lost, "doubled": self.doubled, "never sent": self.foreign, "wrong": self.wrong}
        words = [f"{len(cases)} {what}, as {cases[0]}" for what, cases in found.items() if cases]
        return "; ".join(words) or f"{self.readings} readings and {self.rejects} rejects, all once"


@dataclass
class _Claim:
    """One variant's standing at one door: whether it was promised, by us or by a broker that is to be believed."""

    promised: bool = False
    excused: bool = False
    stored_claims: int = 0


Readings = dict[Identity, dict[str, dict[str, _Claim]]]
"""Identity, values, door."""

History = dict[Identity, list[str]]


def examine(database_url: str, entries: Iterable[Entry], prefix: str, excused_until: float) -> Verdict:
    """Reconcile the entries with all that the database has of devices whose name begins with `prefix`.

    PUBACKs before `excused_until` bind nobody: the broker that gave them was made to forget.
    """
    return asyncio.run(_examine(database_url, list(entries), prefix, excused_until))


async def _examine(database_url: str, entries: list[Entry], prefix: str, excused_until: float) -> Verdict:
    verdict = Verdict(messages=len(entries))
    readings, rejects = _claims(entries, excused_until)
    db = await asyncpg.connect(database_url)
    try:
        history = await _history(db, prefix)
        kept = await _rejects(db, prefix)
        verdict.readings, verdict.rejects = sum(map(len, history.values())), sum(kept.values())
        _check_history(verdict, readings, history)
        _check_rejects(verdict, rejects, _conflicts(readings, history), kept)
        for kind in MEASURES:
            await _check_live(verdict, db, kind, prefix, _of_http(entries))
            await _check_totals(verdict, db, kind, prefix, history)
    finally:
        await db.close()
    return verdict


def _claims(entries: list[Entry], excused_until: float) -> tuple[Readings, dict[Reject, _Claim]]:
    readings: Readings = defaultdict(lambda: defaultdict(lambda: defaultdict(_Claim)))
    rejects: dict[Reject, _Claim] = defaultdict(_Claim)
    for entry in entries:
        excused = _excused(entry, excused_until)
        promised = bool(entry.answers) or (entry.puback_at is not None and not excused)
        for item in entry.items:
            if item[0] == "reject":
                claim = rejects[entry.door, item[1], item[2]]
            else:
                kind, device, at, values, extra = item
                claim = readings[kind, device, at][_values(values, extra)][entry.door]
            claim.promised |= promised
            claim.excused |= excused
        if len(entry.items) == 1 and entry.items[0][0] != "reject":
            # The broker may deliver one receipt twice, so each message counts once.
            claim.stored_claims += any(answer["stored"] for answer in entry.answers)
    return readings, rejects


def _of_http(entries: list[Entry]) -> set[str]:
    """Devices of which some readings came over HTTP too."""
    return {item[1] for entry in entries if entry.door == "http" for item in entry.items if item[0] != "reject"}


def _excused(entry: Entry, excused_until: float) -> bool:
    """Acknowledged by a broker that forgot it afterwards; its word may have reached us a moment later."""
    if entry.puback_at is None or entry.sent_at > excused_until:
        return False
    return entry.puback_at <= excused_until + _LATE_WORD_S


def _check_history(verdict: Verdict, readings: Readings, history: History) -> None:
    for identity, rows in history.items():
        if len(rows) > 1:
            verdict.doubled.append(f"{identity} is in the history {len(rows)} times")
        for row in rows:
            if row not in readings.get(identity, {}):
                verdict.foreign.append(f"{identity} with {row}")
    for identity, variants in readings.items():
        claims = [claim for doors in variants.values() for claim in doors.values()]
        if sum(claim.stored_claims for claim in claims) > 1:
            verdict.doubled.append(f"{identity} was called newly stored more than once")
        if identity not in history:
            _missing(verdict, claims, f"{identity} is not in the history")


def _check_rejects(
    verdict: Verdict, expected: dict[Reject, _Claim], conflicts: dict[Reject, _Claim], kept: "Counter[Reject]"
) -> None:
    expected = expected | conflicts
    for reject, claim in expected.items():
        if reject not in kept:
            _missing(verdict, [claim], f"{reject} is not among the rejects")
    for reject, count in kept.items():
        if count > 1:
            verdict.doubled.append(f"{reject} is among the rejects {count} times")
        if reject not in expected:
            verdict.foreign.append(f"{reject} among the rejects")


def _conflicts(readings: Readings, history: History) -> dict[Reject, _Claim]:
    """The variants that came second: each door keeps its own copy of them."""
    return {
        (door, "conflict", _conflict_key(identity, values)): claim
        for identity, variants in readings.items()
        for values, doors in variants.items()
        if values not in history.get(identity, [values])
        for door, claim in doors.items()
    }


def _missing(verdict: Verdict, claims: Iterable[_Claim], what: str) -> None:
    claims = list(claims)
    if any(claim.promised for claim in claims):
        verdict.lost.append(what)
    elif any(claim.excused for claim in claims):
        verdict.excused += 1


async def _check_live(verdict: Verdict, db: Any, kind: str, prefix: str, two_writers: set[str]) -> None:
    """Each live row is as of the newest reading and has the last known value of each measure.

    A reading that was stored after a newer one changes nothing, so the last known value is that of the newest reading
    which has the measure, unless it came late: then an older one's may stand. Which of two writers was first nobody
    can say, so for their devices any value that was sent will do.
    """
    columns = ", ".join(["ts", "received_at", "extra::text", *MEASURES[kind].values()])
    live = await _rows_by_device(db, f"SELECT {kind}_id, {columns} FROM {kind}_live_status", kind, prefix)
    history = await _rows_by_device(db, f"SELECT {kind}_id, {columns} FROM {kind}_telemetry_history", kind, prefix)
    for device in live.keys() | history.keys():
        rows = sorted(history.get(device, []), key=lambda row: row["ts"])
        if device in live and rows:
            wrong = _wrong_in_live(live[device][0], rows, MEASURES[kind].values(), device in two_writers)
        else:
            wrong = ["one of live row and history is missing"]
        verdict.wrong += [f"{kind} {device}: live {what}" for what in wrong]


async def _rows_by_device(db: Any, sql: str, kind: str, prefix: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in await db.fetch(f"{sql} WHERE {kind}_id LIKE $1", prefix + "%"):
        found[row[0]].append(row)
    return found


def _wrong_in_live(live: Any, rows: list[Any], columns: Iterable[str], two_writers: bool) -> list[str]:
    """What of a live row cannot be, given the device's rows in the order of device time."""
    newest = rows[-1]
    wrong = [name for name in ("ts", "extra") if live[name] != newest[name]]
    for column in columns:
        having = [row for row in rows if row[column] is not None]
        last = having[-1] if having else None
        came_late = last is not None and any(
            row["ts"] > last["ts"] and row["received_at"] < last["received_at"] for row in rows
        )
        allowed = {None if last is None else last[column]}
        if came_late or (two_writers and last is not newest):
            allowed |= {None, *(row[column] for row in having)}
        if live[column] not in allowed:
            wrong.append(column)
    return wrong


async def _check_totals(verdict: Verdict, db: Any, kind: str, prefix: str, history: History) -> None:
    """The database's own sums against the ledger's values, device by device."""
    expected: dict[str, tuple[int, float]] = {}
    for (of, device, _), rows in history.items():
        if of == kind:
            count, total = expected.get(device, (0, 0.0))
            expected[device] = (count + 1, total + json.loads(rows[0])[0].get(_ENERGY[kind], 0.0))
    question = _TOTALS.format(id=f"{kind}_id", energy=MEASURES[kind][_ENERGY[kind]], kind=kind)
    found = {device: (count, total or 0.0) for device, count, total in await db.fetch(question, prefix + "%")}
    verdict.wrong += [
        f"{device}: {found.get(device)} readings and kWh instead of {expected.get(device)}"
        for device in expected.keys() | found.keys()
        if expected.get(device) != found.get(device)
    ]


async def _history(db: Any, prefix: str) -> History:
    history: History = defaultdict(list)
    for kind, names in MEASURES.items():
        question = f"SELECT {kind}_id, ts, extra, {', '.join(names.values())} FROM {kind}_telemetry_history"
        for device, ts, extra, *values in await db.fetch(f"{question} WHERE {kind}_id LIKE $1", prefix + "%"):
            identity = (kind, device, ts.astimezone(UTC).isoformat())
            has = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            history[identity].append(_values(has, json.loads(extra) if extra else None))
    return dict(history)


async def _rejects(db: Any, prefix: str) -> "Counter[Reject]":
    rows = await db.fetch(_REJECTS, prefix.encode())
    return Counter((row["source"], row["reason"], reject_key(row["payload"])) for row in rows)


def _values(values: dict[str, float], extra: Any) -> str:
    return json.dumps([values, extra], sort_keys=True)


def _conflict_key(identity: Identity, values: str) -> str:
    kind, device, at = identity
    measures, extra = json.loads(values)
    document = {f"{kind}Id": device, **measures, "timestamp": at, **(extra or {})}
    return reject_key(json.dumps(document).encode())
