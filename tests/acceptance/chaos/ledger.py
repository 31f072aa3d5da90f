"""What was sent and what came back, on disk before it counts: one JSON object a line, append-only, fsynced.

A message is noted as sent before it is sent, so whatever the database holds beyond the ledger was never sent.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.chaos.workload import Door, Message


class Ledger:
    """Appends to the file; used by the publisher only."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []

    def sent(self, message: Message, door: Door) -> None:
        """It will be sent as soon as `sync` has returned."""
        self._note(what="sent", door=door, cycle=message.cycle, n=message.n, items=message.items)

    def puback(self, n: int, at: float) -> None:
        """The broker took it; its word came at this time."""
        self._note(what="puback", door="mqtt", n=n, at=at)

    def answer(self, n: int, door: Door, answer: dict[str, Any]) -> None:
        """A receipt, or the body of a 201, 207 or 422: it is stored."""
        self._note(what="answer", door=door, n=n, answer=answer)

    def indeterminate(self, n: int, door: Door, why: str) -> None:
        """No answer, or one that leaves it open."""
        self._note(what="indeterminate", door=door, n=n, why=why)

    def _note(self, **record: Any) -> None:
        line = json.dumps({"at": time.monotonic(), **record}).encode() + b"\n"
        self._lines.append(line)

    def sync(self) -> None:
        """Return when all that was noted is on disk."""
        lines, self._lines = self._lines, []
        if lines:
            self._file.write(b"".join(lines))
            os.fsync(self._file.fileno())


@dataclass
class Entry:
    """One message through one door, and the best that is known of it. Times are monotonic, in seconds."""

    n: int
    cycle: int
    door: Door
    items: list[list[Any]]
    sent_at: float
    puback_at: float | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)


def read_ledger(path: Path) -> list[Entry]:
    """Every message of the ledger, in the order of sending."""
    entries: dict[tuple[int, Door], Entry] = {}
    for record in _records(path):
        key = (record["n"], record["door"])
        if record["what"] == "sent":
            entries[key] = Entry(record["n"], record["cycle"], record["door"], record["items"], record["at"])
        elif record["what"] == "puback":
            entries[key].puback_at = entries[key].puback_at or record["at"]
        elif record["what"] == "answer":
            entries[key].answers.append(record["answer"])
    return list(entries.values())


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)
