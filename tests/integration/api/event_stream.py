"""A client of the live stream: reads events in the background, and keeps the picture that a page would show."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import httpx

from tests.until import until

PATH = "/v1/live/stream"
KEYS = {"vehicles": "vehicleId", "meters": "meterId"}


class Event(NamedTuple):
    """An event as received; comments have the name `:` and their text as data."""

    name: str
    data: Any
    id: str | None


class EventStream:
    """An open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.events: list[Event] = []
        self.picture: dict[str, dict[str, Any]] = {}
        """The row of each device."""
        self.last_id = ""
        self.retry = ""
        self.ended: str | None = None
        """How the response ended; None while it is open."""

    async def read(self) -> None:
        """Read until the response ends."""
        fields: dict[str, str] = {}
        try:
            async for line in self.response.aiter_lines():
                name, _, value = line.partition(": ")
                if line == "":
                    self._event(fields)
                    fields = {}
                elif line.startswith(":"):
                    self.events.append(Event(":", line[2:], None))
                else:
                    fields[name] = value
            self.ended = "complete"
        except httpx.TransportError as error:
            self.ended = type(error).__name__

    def _event(self, fields: Mapping[str, str]) -> None:
        self.retry = fields.get("retry", self.retry)
        if "event" not in fields:
            return
        event = Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
        self.last_id = event.id or self.last_id
        if event.name == "snapshot" and not self.of("snapshot"):
            self.picture.clear()
        self.events.append(event)
        for kind, key in KEYS.items():
            self.picture |= {row[key]: row for row in event.data.get(kind, ())}

    def of(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    async def snapshot(self) -> dict[str, dict[str, Any]]:
        """The picture, when the snapshot is complete."""
        await until(lambda: any(not event.data["more"] for event in self.of("snapshot")), "the snapshot is complete")
        return self.picture

    async def shows(self, id_: str, **values: object) -> dict[str, Any]:
        """The row of a device, when it has these values."""
        await until(lambda: values.items() <= self.picture.get(id_, {}).items(), f"{id_} has {values}")
        return self.picture[id_]

    async def end(self) -> str:
        """How the response ended, when it has."""
        await until(lambda: self.ended, "the stream has ended")
        assert self.ended is not None
        return self.ended


@contextlib.asynccontextmanager
async def watch(
    client: httpx.AsyncClient, last_id: str = "", coding: str = "gzip, deflate", **query: Any
) -> AsyncIterator[EventStream]:
    """Open a stream, and read it until the context is left."""
    headers = {"Accept-Encoding": coding} | ({"Last-Event-ID": last_id} if last_id else {})
    async with client.stream("GET", PATH, params=query, headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
        assert response.status_code == 200, response.text
        stream = EventStream(response)
        reading = asyncio.create_task(stream.read())
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
