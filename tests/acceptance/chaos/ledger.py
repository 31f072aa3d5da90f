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

from tests.acceptance.chaos.workload import Message


class Ledger:
    """Appends to the file; used by the publisher only."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []

    def sent(self, message: Message, door: str) -> None:
        """It will be sent as soon as `sync` has returned."""
        self._note(what="sent", door=door, cycle=message.cycle, n=message.n, items=message.items)

    def puback(self, n: int, at: float) -> None:
        """The broker took it; its word came at this time."""
        self._note(what="puback", n=n, at=at)

    def answer(self, n: int, answer: dict[str, Any]) -> None:
        """A receipt, or the body of a 201, 207 or 422: it is stored."""
        self._note(what="answer", n=n, answer=answer)

    def indeterminate(self, n: int, why: str) -> None:
        """No answer, or one that leaves it open."""
        self._note(what="indeterminate", n=n, why=why)

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
    """One message, and the best that is known of it. Times are the machine's monotonic clock, in seconds."""

    n: int
    cycle: int
    door: str
    items: list[list[Any]]
    sent_at: float
    puback_at: float | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)


def read_ledger(path: Path) -> list[Entry]:
    """Every message of the ledger, in the order of sending."""
    entries: dict[int, Entry] = {}
    for record in _records(path):
        if record["what"] == "sent":
            entries[record["n"]] = Entry(record["n"], record["cycle"], record["door"], record["items"], record["at"])
        elif record["what"] == "puback":
            entry = entries[record["n"]]
            entry.puback_at = entry.puback_at or record["at"]
        elif record["what"] == "answer":
            entries[record["n"]].answers.append(record["answer"])
    return list(entries.values())


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)
