"""The page in a browser: P1 and P2 while a bridge stores a hundred times the design load, P3 with nothing beside it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from playwright.async_api import Page, async_playwright

from local.mosquitto import Mosquitto
from tests.bench.end_to_end import until
from tests.bench.fleet import long_fleet
from tests.bench.http_servers import RunningApi, api
from tests.bench.load import Load, this_minute, vehicle_name
from tests.bench.machine import Db, Machine, RunningBridge, flood, result_of, run_flood
from tests.bench.publisher import Publisher, publish_packet
from tests.bench.questions import RATE
from tests.bench.report import Figure, percentile
from tests.drawn import DRAWN_MS, IS_DRAWN

CHROMIUM = Path("/usr/bin/chromium")
_HAS_CHROMIUM = CHROMIUM.exists()
_DEVICES = 20_000
"""Half of them are vehicles."""
_MOST_S = 600
"""Length of the load, which is stopped at the end of the measure."""
_PROBE = "A_PROBE"
"""The first one in the list by name, so that it is in view among all the others."""
_OLDEST = f"""
SELECT least((SELECT min(ts) FROM vehicle_live_status WHERE vehicle_id <> '{_PROBE}'),
             (SELECT min(ts) FROM meter_live_status))
"""
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
_WATCH = """(id) => {
  window.seen = {};
  new MutationObserver(() => {
    const shown = /(\\d+)\\s*%/.exec(document.querySelector(`tr[data-id="${id}"]`)?.textContent ?? "");
    if (shown && !(shown[1] in window.seen)) window.seen[shown[1]] = performance.timeOrigin + performance.now();
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
"""Notes when each state of charge of the probe is in the document, in ms since 1970."""


async def p1_p2(machine: Machine) -> list[Figure]:
    """From publish to the open page, and the first view of 10,000 vehicles, both under load."""
    if not _HAS_CHROMIUM:
        return [Figure("P1", "publish to pixel p99", 0, None, None, detail=f"not measured: {CHROMIUM} is missing")]
    first = Load(_DEVICES, _DEVICES, this_minute() - timedelta(minutes=1))
    with machine.database() as url, machine.broker() as broker, machine.bridge(url, broker) as bridge:
        await run_flood(broker, first)
        await until(lambda: bridge.counted("stored") >= _DEVICES)
        async with api(machine, url) as running, _page(running) as page, _loaded(url, broker, bridge) as rate:
            views = [await _first_view(page, running) for _ in range(3 if machine.quick else 9)]
            delays = await _probe(broker, page, 20 if machine.quick else 100)
            detail = f"{_DEVICES:,} devices, {rate():,.0f} readings/s stored meanwhile"
    shown = f"p50 {percentile(delays, 0.5):.2f} s, most {max(delays):.2f} s of {len(delays)}; {detail}"
    each, median = " ".join(f"{view:.2f}" for view in sorted(views)), sorted(views)[len(views) // 2]
    return [
        Figure("P1", "publish to pixel p99", percentile(delays, 0.99), 2, 1.5, True, " s", detail=shown),
        Figure("P2", "first view of 10,000 vehicles", median, 1, 0.5, True, " s", detail=f"rounds {each}; {detail}"),
    ]


async def p3(machine: Machine) -> list[Figure]:
    """From the last answer about a vehicle's year to its drawn charts."""
    if not _HAS_CHROMIUM:
        return [Figure("P3", "a year drawn", 0, None, None, detail=f"not measured: {CHROMIUM} is missing")]
    fleet = await long_fleet(machine)
    rounds: list[float] = []
    async with api(machine, fleet.url) as running, _page(running) as page:
        for _ in range(3 if machine.quick else 9):
            await page.goto("about:blank")
            await page.goto(f"http://127.0.0.1:{running.port}/#/vehicles/{vehicle_name(0)}?span=year&tz=UTC")
            await page.wait_for_function(IS_DRAWN, timeout=60_000, polling=50)
            rounds.append(await page.evaluate(DRAWN_MS) / 1e3)
    detail = "rounds " + " ".join(f"{drawn:.2f}" for drawn in sorted(rounds))
    median = sorted(rounds)[len(rounds) // 2]
    return [Figure("P3", "a vehicle's year drawn after the answers", median, 0.3, 0.15, True, " s", detail=detail)]


@contextlib.asynccontextmanager
async def _page(running: RunningApi) -> AsyncIterator[Page]:
    """A page that is signed in."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        page = await browser.new_page(viewport={"width": 1366, "height": 900})
        await page.add_init_script(f"sessionStorage.setItem('fleet.key', '{running.key}')")
        yield page
        await browser.close()


@contextlib.asynccontextmanager
async def _loaded(url: str, broker: Mosquitto, bridge: RunningBridge) -> AsyncIterator[Callable[[], float]]:
    """A steady load that changes every live row; yields what tells the rate of storing since then."""
    async with flood(broker, _steady(_MOST_S), rate=RATE) as process:
        flooding = asyncio.create_task(result_of(process))
        try:
            before, began = bridge.counted("stored"), time.monotonic()
            await until(lambda: bridge.counted("stored") > before + 5 * RATE)
            oldest = await _oldest_live_row(url)
            yield lambda: (bridge.counted("stored") - before) / (time.monotonic() - began)
            if flooding.done():
                raise RuntimeError("the load ended before the measure")
            if await _oldest_live_row(url) <= oldest:
                raise RuntimeError("the load changed no live row, so the page had nothing to show")
        finally:
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)


def _steady(seconds: int) -> Load:
    """A load whose readings have the time at which they are sent, up to a sixth of its length."""
    messages = RATE * seconds
    turns = -(-messages // _DEVICES)
    now = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=turns)
    return Load(messages, _DEVICES, now, stride=7_919, step_s=1)


async def _oldest_live_row(url: str) -> datetime:
    """The time of the device of the load whose live row is the oldest."""
    db: Db = await asyncpg.connect(url)
    try:
        found: datetime = await db.fetchval(_OLDEST)
    finally:
        await db.close()
    return found


async def _first_view(page: Page, running: RunningApi) -> float:
    """Seconds from the request of the page to the list of all vehicles."""
    await page.goto("about:blank")
    await page.goto(f"http://127.0.0.1:{running.port}/#/fleet")
    await page.get_by_text(" of 10,0").wait_for(timeout=60_000)
    took_ms: float = await page.evaluate("performance.getEntriesByName('fleet-shown')[0].startTime")
    return took_ms / 1e3


async def _probe(broker: Mosquitto, page: Page, count: int) -> list[float]:
    """Seconds from each publish to the page."""
    publisher = await Publisher.open(broker.url, "bench-pixel")
    delays: list[float] = []
    try:
        await _publish(publisher, 0)
        await page.locator(f'tr[data-id="{_PROBE}"]').wait_for(timeout=30_000)
        await page.evaluate(_WATCH, _PROBE)
        for probe in range(1, count + 1):
            began = time.time()
            await _publish(publisher, probe)
            seen = await page.wait_for_function("(n) => window.seen[n]", arg=str(probe), timeout=30_000, polling=50)
            delays.append(float(await seen.json_value()) / 1e3 - began)
            await asyncio.sleep(probe * 0.37 % 1)  # at other instants of the second
    finally:
        publisher.close()
    return delays


async def _publish(publisher: Publisher, soc: int) -> None:
    at = datetime.now(UTC).isoformat()
    payload = f'{{"vehicleId":"{_PROBE}","soc":{soc},"timestamp":"{at}"}}'
    publisher.send(publish_packet(f"fleet/vehicle/{_PROBE}/telemetry", payload.encode(), soc + 1))
