"""The victim's process: other devices, which send a reading each 150 ms and look for each of them in the database.

`python -m tests.acceptance.attacks.victim`, with its `Access` as JSON on stdin. It says `ready` when readings are
stored over both ways, goes on until the next line comes on stdin, waits for what is not stored yet, and prints its
`Waits`.
A vehicle sends over MQTT with its certificate; another one posts, each time on a new connection, and tries again when
it is refused. A third client asks for the live state of the second. Only clients of third parties are used.
"""

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.until import NotInTime, until

MQTT_VICTIM, HTTP_VICTIM = "VICTIM_MQTT", "VICTIM_HTTP"
_EVERY_S = 0.15
_LOOK_EVERY_S = 0.01
_AGAIN_S = 0.1
_PATIENCE_S = 10.0
"""How long after the end a reading may still be stored; then it counts as never stored."""
_STORED = "SELECT vehicle_id, ts FROM vehicle_telemetry_history WHERE vehicle_id = ANY ($1) AND ts >= $2"


@dataclass(frozen=True)
class Access:
    """Where and as what the victim sends."""

    tls_port: int
    credentials: str
    api_url: str
    key: str
    """An API key limited to the vehicle that posts."""
    database_url: str


@dataclass
class Waits:
    """What the victim saw. Seconds are the longest from the moment a reading was due until it was in the database."""

    mqtt_s: float = 0.0
    http_s: float = 0.0
    live_s: float = 0.0
    """The longest until the live state was answered."""
    sent: int = 0
    never: int = 0
    """Readings that were not stored within ten seconds after the end."""
    refused: dict[str, int] = field(default_factory=dict)
    """Statuses and errors of requests that had to be repeated."""


class Victim:
    """The devices of one process."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._due: dict[str, dict[datetime, float]] = {MQTT_VICTIM: {}, HTTP_VICTIM: {}}
        self._worst = {MQTT_VICTIM: 0.0, HTTP_VICTIM: 0.0}
        self._waits = Waits()
        self._refused: Counter[str] = Counter()
        self._requests: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> Waits:
        """Send until `stop` is set."""
        mqtt = _mqtt(self._access)
        database = await asyncpg.connect(self._access.database_url)
        no_reuse = httpx.Limits(max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {self._access.key}"}
        try:
            async with httpx.AsyncClient(
                base_url=self._access.api_url, headers=headers, timeout=5, limits=no_reuse
            ) as http:
                tasks = [
                    asyncio.create_task(work)
                    for work in (self._look(database), self._publish(mqtt), self._post(http), self._ask(http))
                ]
                await self._until_ready(tasks)
                _say("ready")
                await self._until(stop, tasks)
                for task in tasks[1:]:
                    task.cancel()
                await self._finish()
                tasks[0].cancel()
                for request in self._requests:
                    request.cancel()
                await asyncio.gather(*tasks, *self._requests, return_exceptions=True)
        finally:
            mqtt.loop_stop()
            database.terminate()
        return self._result()

    async def _until_ready(self, tasks: list[asyncio.Task[None]]) -> None:
        """Until both have had a reading stored and nothing waits; what was slow before does not count."""
        while not (all(self._worst.values()) and self._waits.live_s):
            await asyncio.sleep(_LOOK_EVERY_S)
            _raise(tasks)
        self._worst = dict.fromkeys(self._worst, 0.0)
        self._waits = Waits()
        self._refused.clear()

    async def _until(self, stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        _raise(tasks)

    async def _finish(self) -> None:
        with contextlib.suppress(NotInTime):
            await until(lambda: not any(self._due.values()), "everything is stored", _PATIENCE_S)
        for name, due in self._due.items():
            self._waits.never += len(due)
            self._worst[name] = max([self._worst[name], *(time.monotonic() - at for at in due.values())])

    def _result(self) -> Waits:
        self._waits.mqtt_s, self._waits.http_s = self._worst[MQTT_VICTIM], self._worst[HTTP_VICTIM]
        self._waits.refused = dict(self._refused)
        return self._waits

    async def _look(self, database: "asyncpg.Connection[asyncpg.Record]") -> None:
        while True:
            oldest = min((at for due in self._due.values() for at in due), default=None)
            if oldest is not None:
                for name, at in await database.fetch(_STORED, list(self._due), oldest):
                    if (due := self._due[name].pop(at, None)) is not None:
                        self._worst[name] = max(self._worst[name], time.monotonic() - due)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _publish(self, mqtt: paho.Client) -> None:
        async for due in _ticks(_EVERY_S):
            payload = self._reading(MQTT_VICTIM, due)
            mqtt.publish(f"fleet/vehicle/{MQTT_VICTIM}/telemetry", payload, qos=1)

    async def _post(self, http: httpx.AsyncClient) -> None:
        async for due in _ticks(_EVERY_S):
            self._begin(self._until_posted(http, self._reading(HTTP_VICTIM, due)))

    async def _until_posted(self, http: httpx.AsyncClient, payload: bytes) -> None:
        if not await self._answered(http, "POST", "/v1/ingest", payload):
            await asyncio.sleep(_AGAIN_S)
            await self._until_posted(http, payload)

    async def _ask(self, http: httpx.AsyncClient) -> None:
        async for due in _ticks(_EVERY_S * 2):
            self._begin(self._until_shown(http, due))

    async def _until_shown(self, http: httpx.AsyncClient, due: float) -> None:
        while not await self._answered(http, "GET", f"/v1/live/vehicles/{HTTP_VICTIM}"):
            self._waits.live_s = max(self._waits.live_s, time.monotonic() - due)
            await asyncio.sleep(_AGAIN_S)
        self._waits.live_s = max(self._waits.live_s, time.monotonic() - due)

    def _begin(self, request: Coroutine[Any, Any, None]) -> None:
        """A client of its own: none waits for the answer to an earlier request."""
        task = asyncio.create_task(request)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _answered(self, http: httpx.AsyncClient, method: str, path: str, content: bytes | None = None) -> bool:
        """Whether the answer is a success; what else it is, is counted."""
        headers = {"Content-Type": "application/json"}
        try:
            answer = await http.request(method, path, content=content, headers=headers)
        except httpx.TransportError as error:
            self._refused[type(error).__name__] += 1
            return False
        if not answer.is_success:
            self._refused[str(answer.status_code)] += 1
        return answer.is_success

    def _reading(self, name: str, due: float) -> bytes:
        at = datetime.now(UTC)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        self._due[name][at] = due
        self._waits.sent += 1
        fields: dict[str, Any] = {"vehicleId": name, "timestamp": at.isoformat(), "soc": at.second}
        return json.dumps(fields).encode()


async def _ticks(every_s: float) -> AsyncIterator[float]:
    """Moments (monotonic clock) at this distance, from now on; none is left out after a delay."""
    due = time.monotonic()
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield due
        due += every_s


def _raise(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def _mqtt(access: Access) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="x", protocol=MQTTProtocolVersion.MQTTv5)
    files = Path(access.credentials)
    client.tls_set(str(files / "ca.crt"), str(files / "device.crt"), str(files / "device.key"))
    client.max_inflight_messages_set(1_000)
    client.reconnect_delay_set(1, 1)
    client.connect("localhost", access.tls_port)
    client.loop_start()
    return client


async def _main() -> None:
    access = Access(**json.loads(sys.stdin.readline()))
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.readline()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait, daemon=True).start()
    _say(json.dumps(asdict(await Victim(access).run(stop))))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
