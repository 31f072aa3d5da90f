"""Replays rejected messages, one at a time: a message is decoded again and its readings are stored.

Nothing is stored twice, however often a message is replayed, by how many programs at once, and wherever a replay is
killed. A reading is identified by its device and timestamp and a reject by its digest, so writing them again has no
effect. A message is marked as replayed after the commit of its readings; if the program dies in between, the next
replay finds duplicates. Meanwhile the message's row is locked: another replay does not wait for it and skips it.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, TypeAlias
from uuid import UUID

import asyncpg

from bridge import audit
from bridge.clock import Clock
from bridge.delivery import Item, Kept, Outcome, Store, kept_as
from bridge.errors import Rejected
from bridge.formats import decode, named
from bridge.formats.port import MAX_READINGS_PER_MESSAGE, AcceptedWindow
from bridge.store.database_clock import compare

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_PENDING = """
SELECT id, source, topic, device, format, payload, reason, detail, sender FROM rejected_message
WHERE id = $1 AND replayed_at IS NULL
"""
_CLAIM = f"{_PENDING} FOR NO KEY UPDATE SKIP LOCKED"
_KNOWN = "SELECT replayed_at IS NULL FROM rejected_message WHERE id = $1"
_DONE = "UPDATE rejected_message SET replayed_at = now() WHERE id = $1"
_MOST_SHOWN = 20

Ending = Literal["stored", "partly", "rejected", "forbidden", "replayed", "busy", "unknown"]
"""How the replay of a message ended, or would end.

*stored*: its readings are in the history. *partly*: some of its elements are rejected again and are rejects of their
own now; the others are in the history. *rejected*: rejected again, and still pending. *forbidden*: skipped, because its
sender was not allowed to report it. *replayed*: skipped, because it was replayed before. *busy*: skipped, because
another replay has it. *unknown*: no reject has this id.
"""


class Replayed(NamedTuple):
    """The result for one message."""

    id: UUID
    ending: Ending
    stored: int = 0
    """Readings that this replay stored."""
    duplicates: int = 0
    """Readings that were in the history already."""
    rejected: int = 0
    """Elements that were rejected again."""
    detail: str = ""
    """Why a part of it is not stored; with the index of each element, of up to 20."""


class ReplayStore(Store, Protocol):
    """The database, which can also be asked what a write would do."""

    async def foresee(self, items: Sequence[Item]) -> list[Outcome]:
        """The outcomes that a write would have now; stores nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """What replays have in common.

    `store_of` returns the store for a source, so that an item that is rejected again keeps its source. The window is
    that of the times which are accepted now. `actor` is recorded in the audit log. A forbidden message is a valid
    reading and would be stored although its sender was not allowed to report it: it is skipped unless `even_forbidden`.
    A message with more than `most` readings is rejected again; None means no such limit.
    """

    store_of: Callable[[str], ReplayStore]
    window: AcceptedWindow
    clock: Clock
    actor: str
    even_forbidden: bool = False
    most: int | None = None

    async def run(self, connection: Connection, id_: UUID) -> Replayed:
        """Store the readings of a message. Raises `StoreUnavailable`, also when the clocks differ; the message can then
        be replayed again."""
        async with connection.transaction():
            row = await connection.fetchrow(_CLAIM, id_)
            if row is None or self._is_skipped(row):
                return await _skipped(connection, id_, row)
            items, store = await self._decoded(connection, row), self.store_of(row["source"])
            # A message that is rejected again as a whole is stored already: as this reject.
            outcomes: list[Outcome] = [item for item in items if isinstance(item, Rejected)]
            if len(items) > 1 or not outcomes:
                outcomes = [outcome for part in _parts(items) for outcome in await store.write(part)]
            result = _result(id_, outcomes)
            if result.ending != "rejected":
                await connection.execute(_DONE, id_)
            said = result.detail or result.ending
            await audit.record(
                connection, self.actor, "rejected.replay", f"rejected:{id_}", reason=row["reason"], result=said
            )
        return result

    async def foresee(self, connection: Connection, id_: UUID) -> Replayed:
        """The result that `run` would have now; changes nothing.

        What only the database refuses is not foreseen.
        """
        row = await connection.fetchrow(_PENDING, id_)
        if row is None or self._is_skipped(row):
            return await _skipped(connection, id_, row)
        items = await self._decoded(connection, row)
        return _result(id_, await self.store_of(row["source"]).foresee(items))

    def _is_skipped(self, row: asyncpg.Record) -> bool:
        return row["reason"] == "forbidden" and not self.even_forbidden

    async def _decoded(self, connection: Connection, row: asyncpg.Record) -> Sequence[Item]:
        """Decode the payload in its original format, in a thread: a large one takes seconds."""
        if self.clock.is_due:
            await compare(connection, self.clock)
        times, payload = self.window.at(self.clock.now()), row["payload"]
        format_ = named(row["format"])
        if format_ is None:
            detail = f"this version has no format {row['format']}"
            return [Rejected("not_a_reading", detail, payload, row["topic"], row["device"], row["format"])]
        most = len(payload) if self.most is None else self.most
        items = await asyncio.to_thread(decode, format_, payload, row["topic"], times, most)
        return [replace(item, sender=row["sender"]) if isinstance(item, Rejected) else item for item in items]


async def _skipped(connection: Connection, id_: UUID, row: asyncpg.Record | None) -> Replayed:
    """Why a message is not replayed; `row` is that of a forbidden one."""
    if row is not None:
        return Replayed(id_, "forbidden", detail=f"forbidden: {row['detail']}")
    is_pending = await connection.fetchval(_KNOWN, id_)
    if is_pending is None:
        return Replayed(id_, "unknown", detail="there is no rejected message with this id")
    if is_pending:
        return Replayed(id_, "busy", detail="another replay is storing it")
    return Replayed(id_, "replayed", detail="it was replayed before")


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Split items of a message that was too long into parts of the accepted length."""
    for start in range(0, len(items), MAX_READINGS_PER_MESSAGE):
        yield items[start : start + MAX_READINGS_PER_MESSAGE]


def _result(id_: UUID, outcomes: Sequence[Outcome]) -> Replayed:
    """The result of a message by the outcomes of its elements."""
    refused = [f"{n}: {outcome}" for n, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)]
    stored = sum(kept_as(outcome) is Kept.STORED for outcome in outcomes)
    counts = stored, len(outcomes) - stored - len(refused), len(refused)
    if not refused:
        return Replayed(id_, "stored", *counts)
    reasons = "; ".join(refused[:_MOST_SHOWN])
    if len(outcomes) == 1:
        return Replayed(id_, "rejected", *counts, reasons)
    # Elements that are rejected again are stored as separate rejects.
    kept = len(outcomes) - len(refused)
    return Replayed(id_, "partly", *counts, f"{reasons} ({kept} of {len(outcomes)} stored)")
