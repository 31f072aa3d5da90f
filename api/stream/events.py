"""The text of events (WHATWG HTML, section 9.2). Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from api.stream.mirror import Row, objects
from bridge.reading import format_timestamp

MOST_ROWS = 1_000
"""In one event."""
RETRY = b"retry: 2000\n\n"
HEARTBEAT = b": heartbeat\n\n"


def snapshot(rows: Iterable[Row], at: datetime, *, more: bool) -> bytes:
    """A part of the whole picture, without an id."""
    now = at.timestamp()
    listed = objects((row, row.text(now)) for row in rows)
    return _event("snapshot", f'{{"at":"{format_timestamp(at)}",{listed},"more":{json.dumps(more)}}}')


def changes(rows: Sequence[tuple[Row, str]], at: datetime, id_: str) -> Iterator[bytes]:
    """Events with serialized rows. The id is that of the last one: before it the client does not have them all."""
    parts = [rows[n : n + MOST_ROWS] for n in range(0, len(rows), MOST_ROWS)] or [()]
    for n, part in enumerate(parts, 1):
        event = _event("changes", f'{{"at":"{format_timestamp(at)}",{objects(part)}}}')
        yield identified(id_, event) if n == len(parts) else event


def database(at: datetime, *, available: bool) -> bytes:
    """The database cannot be read, or can be read again; the time is the API's."""
    return _event("database", f'{{"at":"{format_timestamp(at)}","available":{json.dumps(available)}}}')


def pace(at: datetime, every_s: float) -> bytes:
    """How often changes are sent from now on; the time is the API's."""
    return _event("pace", f'{{"at":"{format_timestamp(at)}","everyS":{every_s:.1f}}}')


def alarm(text: str) -> bytes:
    """An alarm, already serialized, that was raised, cleared or acknowledged."""
    return _event("alarm", text)


def identified(id_: str, event: bytes) -> bytes:
    """The event with an id."""
    return f"id: {id_}\n".encode() + event


def comment(text: str) -> bytes:
    """A line that clients ignore."""
    return f": {text}\n\n".encode()


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()
