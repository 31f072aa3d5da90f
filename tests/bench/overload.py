"""T13-OVERLOAD: for minutes several times the rate that the database accepts. Memory is bounded, further messages wait
in the broker, nothing is dropped, and the backlog is drained afterwards."""

import contextlib
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.acceptance.chaos.link import Link
from tests.bench.end_to_end import DEVICES, until
from tests.bench.load import Load, this_minute
from tests.bench.machine import Machine, count_rows, flood, result_of
from tests.bench.report import Figure

_RATE = 10_000
_MINUTES = 3
# Each piece of at most 64 KiB on its way to or from the database waits so long: a batch takes seconds.
_PAUSE_S = 0.08


async def t13_overload(machine: Machine) -> list[Figure]:
    """A steady load into a database that is slow during the load and recovers afterwards."""
    load = Load(int(_RATE * 60 * (1 if machine.quick else _MINUTES)), DEVICES, this_minute())
    with machine.database() as url:
        with (
            machine.broker() as broker,
            _link_to(machine.as_login(url, "bridge")) as (link, linked_url),
            machine.bridge(url, broker, {"FLEET_DATABASE_URL": linked_url}) as bridge,
        ):
            link.delay(_PAUSE_S)
            began, before = time.monotonic(), bridge.counted("stored")
            async with flood(broker, load, rate=_RATE) as process:
                sent = await result_of(process)
            taken = (bridge.counted("stored") - before) / (time.monotonic() - began)
            link.heal()
            healed, waiting = time.monotonic(), load.readings - bridge.counted("stored")
            done = await until(lambda: bridge.counted("stored", "duplicate", "rejected") >= load.readings)
            peak_mb = bridge.peak_memory_mb()
        if await count_rows(url) != load.readings:
            raise RuntimeError("readings of the overload are missing, or are stored twice")
    times = sent["rate"] / max(taken, 1.0)
    shown = (
        f"{sent['rate']:,.0f}/s came, {taken:,.0f}/s were taken, for {load.readings / sent['rate']:.0f} s; then "
        f"{waiting:,} waited and were stored in {done - healed:.0f} s; {load.readings:,} stored once, none lost"
    )
    ceiling = f"{sent['rate']:,.0f}/s"
    return [
        Figure("T13 overload", "load : rate of the database", times, 5, 5, ceiling=ceiling, detail=shown),
        Figure("T13 overload memory", "bridge's peak meanwhile", peak_mb, 200, 120, True, " MB", ceiling),
    ]


@contextlib.contextmanager
def _link_to(database_url: str) -> Iterator[tuple[Link, str]]:
    """A link to the database, and the URL that leads through it."""
    port = urlsplit(database_url).port
    assert port is not None
    link = Link(port)
    try:
        yield link, database_url.replace(f":{port}/", f":{link.port}/")
    finally:
        link.close()
