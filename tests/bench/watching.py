"""L1, L2: 200 viewers of the live stream of one API process, while 10,000 devices report once a minute, or flood it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import psutil

from local.mosquitto import Mosquitto
from tests.bench.end_to_end import DEVICES, a_load, into_fresh_database, through, until
from tests.bench.http_servers import RunningApi, api
from tests.bench.load import Load, this_minute
from tests.bench.machine import Machine, flood, result_of, run_flood
from tests.bench.posts import durable, post
from tests.bench.publisher import Publisher, publish_packet
from tests.bench.report import Figure, median_ratio, percentile

VIEWERS = 200
_PROBE = "PROBE"
_LIMIT = 1 << 20
_POSTS = 20_000  # so many that the pace of the changes is that of a busy process
_BROWSER = "gzip, deflate, br, zstd"


class _Viewers:
    """The open streams, and when each has received each probe."""

    def __init__(self) -> None:
        self.received: dict[int, list[float]] = {}
        self.opened = 0

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read a stream for as long as it lasts. The probes are numbered by their energy."""
        async for line in reader:
            self.opened += b'"more":false' in line
            place = line.find(b'"meterId":"%s"' % _PROBE.encode())
            if place >= 0:
                value = line[place:].partition(b'"kwhConsumedAc":')[2].partition(b".")[0]
                self.received.setdefault(int(value), []).append(time.perf_counter())

    async def until_all_have(self, probe: int) -> None:
        """Wait until every viewer has received a probe."""
        while len(self.received.get(probe, ())) < VIEWERS:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class _Discarding(asyncio.BufferedProtocol):
    """A browser's stream whose events are discarded unread: viewers are on other machines, and have their own cores."""

    _buffer = memoryview(bytearray(1 << 18))
    received = 0

    def __init__(self, request: bytes) -> None:
        self._request = request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.write(self._request)

    def get_buffer(self, _: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        self.received += size


@contextlib.asynccontextmanager
async def _discarding(running: RunningApi) -> AsyncIterator[None]:
    """The viewers, at no more cost for this machine than that of their sockets."""
    loop, opened = asyncio.get_running_loop(), []
    request = _request(running, _BROWSER)
    try:
        for _ in range(VIEWERS):
            made = await loop.create_connection(lambda: _Discarding(request), "127.0.0.1", running.port)
            opened.append(made)
        while not all(protocol.received for _, protocol in opened):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        yield
        if gone := sum(transport.is_closing() for transport, _ in opened):
            raise RuntimeError(f"{gone} streams ended before their time")
    finally:
        for transport, _ in opened:
            transport.close()


def _request(running: RunningApi, coding: str = "identity") -> bytes:
    lines = ["GET /v1/live/stream HTTP/1.1", "Host: bench", f"Authorization: Bearer {running.key}"]
    return "\r\n".join([*lines, f"Accept-Encoding: {coding}", "", ""]).encode()


@contextlib.asynccontextmanager
async def _watching(running: RunningApi) -> AsyncIterator[_Viewers]:
    viewers, writers, tasks = _Viewers(), [], []
    try:
        for _ in range(VIEWERS):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=_LIMIT)
            writer.write(_request(running))
            writers.append(writer)
            tasks.append(asyncio.create_task(viewers.read(reader)))
        while viewers.opened < VIEWERS:
            if failed := [task for task in tasks if task.done()]:
                raise RuntimeError(f"{len(failed)} streams ended before their snapshot")
            await asyncio.sleep(0.05)
        yield viewers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.close()


async def l1(machine: Machine) -> list[Figure]:
    """CPU and memory of the API with the viewers, and the time from publish to each viewer."""
    seconds = 20 if machine.quick else 60
    rate = DEVICES / 60
    first, then = Load(DEVICES, DEVICES, this_minute()), Load(int(rate * seconds), DEVICES, _later())
    with machine.database() as url, machine.broker() as broker, machine.bridge(url, broker) as bridge:
        await run_flood(broker, first)
        await until(lambda: bridge.counted("stored") >= DEVICES)
        async with api(machine, url) as running, _watching(running) as viewers:
            before_s, began = running.cpu_s(), time.perf_counter()
            async with flood(broker, then, rate=rate) as process:
                flooding = asyncio.create_task(result_of(process))
                delays = await _probe(broker, viewers, flooding)
                await flooding
            cores = (running.cpu_s() - before_s) / (time.perf_counter() - began)
            resident = psutil.Process(running.process.pid).memory_info()
    detail = f"{VIEWERS} viewers, {DEVICES:,} devices, {rate:.0f} readings/s, {len(delays) // VIEWERS} probes"
    shown = f"p50 {percentile(delays, 0.5) * 1e3:.0f} ms; {detail}"
    return [
        Figure("L1 CPU", "CPU of the API with 200 viewers", cores, 0.5, 0.25, True, " cores", detail=detail),
        Figure("L1 memory", "memory of the API", resident.rss / 1e6, 300, 200, True, " MB", detail=detail),
        Figure("L1", "publish to event p99", percentile(delays, 0.99), 2, 1.5, True, " s", detail=shown),
    ]


async def l2(machine: Machine) -> list[Figure]:
    """T1 and T6 with the viewers, compared with the same without them, in turns."""
    load = a_load(machine)
    floods, posts = [], []
    for _ in range(3):
        with machine.database() as url:
            async with api(machine, url) as running, _discarding(running):
                before_s = running.cpu_s()
                watched = await through(machine, load, url)
                api_s = running.cpu_s() - before_s
        floods.append((watched.rate, (await into_fresh_database(machine, load)).rate))
        with machine.database() as url:
            async with api(machine, url) as running, _discarding(running):
                posted = await post(running, "single", _POSTS)
        posts.append((posted.rate, (await durable(machine, "single", _POSTS)).rate))
    found = []
    for key, measure, pairs in (("L2 T1", "end to end", floods), ("L2 T6", "durable posts", posts)):
        ratio, rounds = median_ratio(pairs)
        shown = f"API {api_s:.1f} s of CPU in the last flood; " if key == "L2 T1" else ""
        shown += f"{pairs[-1][0]:,.0f}/s : {pairs[-1][1]:,.0f}/s; {rounds}"
        found.append(Figure(key, f"{measure} with {VIEWERS} viewers : without", ratio, 0.95, 1.0, detail=shown))
    return found


def _later() -> datetime:
    """So late that no reading of the first load has the same time; devices may be five minutes fast."""
    return datetime.fromtimestamp(this_minute().timestamp() + 120, UTC)


async def _probe(broker: Mosquitto, viewers: _Viewers, until_done: "asyncio.Task[object]") -> list[float]:
    """Seconds from each publish to each viewer."""
    publisher = await Publisher.open(broker.url, "bench-probe")
    delays: list[float] = []
    probe = 0
    try:
        while not until_done.done():
            probe += 1
            at = datetime.now(UTC).isoformat()
            payload = f'{{"meterId":"{_PROBE}","kwhConsumedAc":{probe},"voltage":230,"timestamp":"{at}"}}'
            began = time.perf_counter()
            publisher.send(publish_packet(f"fleet/meter/{_PROBE}/telemetry", payload.encode(), probe))
            await viewers.until_all_have(probe)
            delays += [received - began for received in viewers.received[probe]]
            await asyncio.sleep(probe * 0.37 % 1)  # at other instants of the second
    finally:
        publisher.close()
    return delays
