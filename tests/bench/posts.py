"""T6, T7: posted readings, committed before the response."""

from collections.abc import Callable
from typing import NamedTuple

from tests.bench.http_servers import RunningApi, api, bare, cpu_s
from tests.bench.load import this_minute
from tests.bench.machine import Flood, Machine, count_rows, result_of, worker
from tests.bench.report import Figure, median_ratio
from tests.bench.writes import copy_rate

_DEVICES = 10_000
_CONNECTIONS = 32
_BULK_CONNECTIONS = 4
_BULK = 1_000
_FORMS = ("array", "ndjson", "gzip")


class Posted(NamedTuple):
    """Readings/s, and the server's and the load generator's CPU for each."""

    rate: float
    cpu_us: float
    load_cpu_us: float


async def _post(port: int, key: str, form: str, requests: int, spent_s: Callable[[], float]) -> Posted:
    per_request, connections = (1, _CONNECTIONS) if form == "single" else (_BULK, _BULK_CONNECTIONS)
    order: dict[str, object] = {
        "port": port,
        "token": key,
        "form": form,
        "requests": requests,
        "per_request": per_request,
        "connections": connections,
        "devices": _DEVICES,
        "now": this_minute().isoformat(),
    }
    async with worker("tests.bench.http_flood", order) as process:
        before_s = spent_s()
        sent = Flood(**await result_of(process))
        return Posted(sent.rate, (spent_s() - before_s) / (requests * per_request) * 1e6, sent.cpu_us)


async def post(running: RunningApi, form: str, requests: int) -> Posted:
    """Post to a running API."""
    return await _post(running.port, running.key, form, requests, running.cpu_s)


async def durable(machine: Machine, form: str, requests: int) -> Posted:
    """Post to the API; afterwards every reading must be in the history, once."""
    with machine.database() as url:
        async with api(machine, url) as running:
            posted = await post(running, form, requests)
        if await count_rows(url) != requests * (1 if form == "single" else _BULK):
            raise RuntimeError("readings that were answered with 201 are missing from the history")
        return posted


async def _bare(machine: Machine, kind: str, form: str, requests: int) -> Posted:
    with bare(machine, kind) as (port, process):
        return await _post(port, "none", form, requests, lambda: cpu_s(process))


async def t6(machine: Machine) -> list[Figure]:
    """Durable single posts compared with a route that only validates."""
    requests = 6_000 if machine.quick else 20_000
    runs = [
        (await durable(machine, "single", requests), await _bare(machine, "route", "single", requests))
        for _ in range(3)
    ]
    ratio, rounds = median_ratio([(stored.rate, validated.rate) for stored, validated in runs])
    stored, validated = runs[-1]
    made_of = f"{stored.rate:,.0f}/s : {validated.rate:,.0f}/s; {rounds}; "
    made_of += f"CPU {stored.cpu_us:.0f} : {validated.cpu_us:.0f} us a request"
    ceiling = f"{(await _bare(machine, 'canned', 'single', requests)).rate:,.0f}/s"
    return [Figure("T6", "durable posts : bare route", ratio, 0.5, 0.8, ceiling=ceiling, detail=made_of)]


async def t7(machine: Machine) -> list[Figure]:
    """Bulk posts of 1,000 readings compared with plain COPY."""
    return [await _bulk(machine, form) for form in _FORMS]


async def _bulk(machine: Machine, form: str) -> Figure:
    requests = 100 if machine.quick else 300
    runs = [(await durable(machine, form, requests), await copy_rate(machine)) for _ in range(3)]
    ratio, rounds = median_ratio([(posted.rate, copied) for posted, copied in runs])
    posted, copied = runs[-1]
    made_of = f"{posted.rate:,.0f}/s : {copied:,.0f}/s; {rounds}; CPU {posted.cpu_us:.1f} us a reading"
    ceiling = f"{(await _bare(machine, 'canned', form, requests)).rate:,.0f}/s"
    return Figure(f"T7 {form}", "bulk posts of 1,000 : COPY", ratio, 0.35, 0.6, ceiling=ceiling, detail=made_of)
