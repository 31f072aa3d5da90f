"""Sessions through HTTP: readings and assignments go in, sessions come out."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import pytest

from bridge.contract import METER, VEHICLE, Kind
from bridge.formats.contract_json import encode_many
from bridge.reading import DeviceId, Reading, format_timestamp, reading
from simulator.converters import ev_charger, ev_vehicle, shift
from tests.integration.api.test_figures import DAY, ac, at, dc, series
from tests.recordings import recording

pytestmark = pytest.mark.anyio

WHOLE_DAY = {"from": format_timestamp(DAY), "to": format_timestamp(DAY + timedelta(days=1))}
RECUPERATING = [-0.6, 0.1, -0.5, 0.2, 0.1, -0.7, 0.0, 0.1, -0.4, 0.3, 0.2, 0.25, -0.9]


class Case(NamedTuple):
    """What is stored and declared, and what the sessions of vehicle V are."""

    readings: list[Reading]
    expected: list[dict[str, object]]
    assigned: Sequence[tuple[str, str, str | None]] = (("M", "00:00", "V"),)


def session(start: str, end: str, **expected: object) -> dict[str, object]:
    return {"from": format_timestamp(at(start)), "to": format_timestamp(at(end)), **expected}


def states(kind: Kind, first: str, **values: Sequence[float | None]) -> list[Reading]:
    """A reading a minute with several measures."""
    rows = zip(*values.values(), strict=True)
    name = "V" if kind is VEHICLE else "M"
    return [
        reading(
            kind,
            name,
            at(first) + timedelta(minutes=n),
            {c: v for c, v in zip(values, row, strict=True) if v is not None},
        )
        for n, row in enumerate(rows)
    ]


def registers(first: str, *values: float) -> list[Reading]:
    return series(VEHICLE, first, 60, values, "kwh_charged_register")


CASES = {
    "a charge": Case(
        [*ac("09:51", *[0.0] * 10, *[1.0] * 10, *[0.0] * 10), *dc("09:51", *[0.0] * 10, *[0.9] * 10, *[0.0] * 10)],
        [
            session("10:00", "10:10", vehicleId="V", meterIds=["M"], site=None, coverage=1.0, efficiency=0.9)
            | {
                "kwhAc": 10.0,
                "kwhDc": 9.0,
                "peakKw": 60.0,
                "meanKw": 60.0,
                "resets": 0,
                "suspectKwh": 0.0,
                "dividedKwh": 0.0,
            }
            | {"openStart": False, "openEnd": False, "socFrom": None, "socTo": None, "odometerKm": None}
        ],
    ),
    "a charge with a pause of ten minutes": Case(
        ac("09:59", 0.0, *[1.0] * 10, *[0.0] * 10, *[0.5] * 10, 0.0), [session("09:59", "10:29", kwhAc=15.0)]
    ),
    "a charge with a pause of twenty minutes": Case(
        ac("09:59", 0.0, *[1.0] * 10, *[0.0] * 20, *[0.5] * 10, 0.0),
        [session("09:59", "10:09", kwhAc=10.0, openEnd=False), session("10:29", "10:39", kwhAc=5.0, openStart=False)],
    ),
    "stand-by of the meter is no charge": Case(
        ac("09:00", *[0.0001] * 60, *[1.0] * 10, *[0.0001] * 60), [session("09:59", "10:09", kwhAc=10.0)]
    ),
    "the step of a register is no charge": Case(
        series(METER, "10:00", 60, [5.0, 5.0, 5.1, 5.1, 5.1], "kwh_import_register"), []
    ),
    "an assignment that changes in the middle": Case(
        [*ac("10:01", *[1.0] * 10), *dc("10:01", *[0.9] * 10)],
        [
            session("10:00", "10:05", meterIds=["M"], kwhAc=5.0, kwhDc=4.5, efficiency=0.9),
            session("10:05", "10:10", meterIds=[], kwhAc=None, kwhDc=4.5, efficiency=None),
        ],
        (("M", "00:00", "V"), ("M", "10:05", "B")),
    ),
    "the vehicle's interval across the end of the assignment": Case(
        [*ac("09:59", 0.0, *[1.0] * 10, 0.0), *dc("09:59:30", 0.0, *[0.9] * 10, 0.0)],
        [session("09:59", "10:09:30", meterIds=["M"], kwhAc=10.0, kwhDc=9.0)],
        (("M", "00:00", "V"), ("M", "10:09", None)),
    ),
    "vehicle to grid": Case(
        [*ac("10:00", 0.0, *[1.0] * 10, *[-0.4] * 10, 0.0), *dc("10:00", 0.0, *[0.9] * 10, *[-0.5] * 10, 0.0)],
        [session("10:00", "10:20", kwhAc=6.0, kwhDc=4.0, efficiency=0.9, peakKw=60.0)],
    ),
    "vehicle to grid alone": Case(
        [*ac("10:00", 0.0, *[-0.4] * 10, 0.0), *dc("10:00", 0.0, *[-0.5] * 10, 0.0)],
        [session("10:00", "10:10", kwhAc=-4.0, kwhDc=-5.0, efficiency=None, peakKw=-24.0, meanKw=-24.0)],
    ),
    "driving with recuperation": Case([*dc("10:00", *RECUPERATING), *ac("10:00", *[0.0] * 13)], []),
    "the last braking before a charge": Case(
        [
            *dc("10:00", *RECUPERATING, 0.1, *[0.0] * 5, *[0.9] * 10, 0.0),
            *ac("10:00", *[0.0] * 19, *[1.0] * 10, 0.0),
        ],
        [session("10:18", "10:28", kwhAc=10.0, kwhDc=9.0)],
    ),
    "a long descent, by the odometer": Case(
        states(
            VEHICLE,
            "10:00",
            kwh_delivered_dc=[-0.6, *[0.3] * 10, -0.5, -0.5],
            odometer_km=[1000.0 + n for n in range(13)],
        ),
        [],
    ),
    "a charge between two drives, at no meter of ours": Case(
        [*dc("10:00", *RECUPERATING, *[1.5] * 12, *RECUPERATING)],
        [
            session("10:12", "10:24", vehicleId="V", meterIds=[], kwhAc=None, kwhDc=18.0, efficiency=None)
            | {"peakKw": 90.0, "coverage": 1.0, "openStart": False, "openEnd": False}
        ],
        (),
    ),
    "an assignment of half a minute at a 15-minute meter": Case(
        ac("10:00", 0.0, 6.0, 6.0, 0.0, step_s=900),
        [
            session("10:05", "10:05:30", kwhAc=6.0, peakKw=24.0, meanKw=720.0, dividedKwh=6.0),
        ],
        (("M", "10:05", "V"), ("M", "10:05:30", None)),
    ),
    "a car that is silent for half of the charge": Case(
        [*ac("09:59", 0.0, *[1.0] * 10, 0.0), *dc("09:59", 0.0, *[0.9] * 5)],
        [session("09:59", "10:09", kwhAc=10.0, kwhDc=4.5, efficiency=0.9, coverage=0.5, openEnd=False)],
    ),
    "a meter that falls silent in a charge": Case(
        ac("09:59", 0.0, *[1.0] * 10), [session("09:59", "10:09", openStart=False, openEnd=True)]
    ),
    "a vehicle with a register only": Case(
        registers("10:00", 100.0, 100.0, *[100 + n for n in range(1, 11)], 110.0, 110.0),
        [session("10:01", "10:11", kwhDc=10.0, kwhAc=None, meterIds=[], openStart=False, openEnd=False)],
        (),
    ),
    "a register that is reset in a charge": Case(
        registers("10:00", 100.0, 100.0, 101.0, 102.0, 0.5, 1.5, 1.5),
        [session("10:01", "10:05", kwhDc=3.5, resets=1)],
        (),
    ),
    "a register that jumps after a charge": Case(
        registers("10:00", 100.0, *[100.0 + n for n in range(1, 6)], 9000.0, 9001.0, 9001.0),
        [session("10:00", "10:07", kwhDc=6.0, suspectKwh=8895.0, coverage=6 / 7)],
        (),
    ),
    "a charge across the period's edges": Case(
        ac("23:30", *[1.0] * 90), [session("23:29", "24:00", kwhAc=31.0, openStart=True, openEnd=True)]
    ),
}


def close(value: object) -> object:
    """A figure to the twelfth decimal; anything else as it is."""
    return pytest.approx(value, abs=1e-12) if isinstance(value, float) else value


async def store(client: httpx.AsyncClient, readings: Sequence[Reading]) -> None:
    answer = await client.post("/v1/ingest", content=encode_many(readings))
    assert answer.status_code == 201, answer.text


async def assign(client: httpx.AsyncClient, assigned: Sequence[tuple[str, str, str | None]]) -> None:
    for meter, clock, vehicle in assigned:
        path = f"/v1/meters/{meter}/assignments/{format_timestamp(at(clock))}"
        assert (await client.put(path, json={"vehicleId": vehicle})).status_code == 201


async def declare(client: httpx.AsyncClient, **sites: str) -> None:
    for meter, site in sites.items():
        assert (await client.put(f"/v1/devices/meters/{meter}", json={"site": site})).status_code == 201


async def ask(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await client.get("/v1/sessions", params=WHOLE_DAY | query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


@pytest.mark.parametrize("name", CASES)
async def test_sessions_of_a_case(name: str, client: httpx.AsyncClient) -> None:
    case = CASES[name]
    await assign(client, case.assigned)
    await store(client, case.readings)
    found = await ask(client, vehicle="V")
    assert len(found) == len(case.expected), found
    for item, expected in zip(found, case.expected, strict=True):
        assert {key: item[key] for key in expected} == {key: close(value) for key, value in expected.items()}


async def test_gauges_are_those_at_the_begin_and_the_end(client: httpx.AsyncClient) -> None:
    await assign(client, [("M", "00:00", "V")])
    charge = states(
        VEHICLE,
        "09:59",
        kwh_delivered_dc=[0.0, *[0.9] * 4, 0.0],
        soc=[50.0, 51.0, None, 53.0, 54.0, 54.0],
        battery_temp=[None, 21.0, 22.0, 23.0, None, 25.0],
        odometer_km=[1234.5, *[None] * 5],
    )
    power = states(METER, "09:59", kwh_consumed_ac=[0.0, *[1.0] * 4, 0.0], power_kw=[0.0, 58.0, 66.5, 61.0, 60.0, 0.0])
    await store(client, [*charge, *power])
    (found,) = await ask(client, vehicle="V")
    assert (found["socFrom"], found["socTo"], found["odometerKm"]) == (50.0, 54.0, 1234.5)
    assert (found["batteryTempFrom"], found["batteryTempTo"]) == (21.0, 25.0)
    assert (found["peakKw"], found["meanKw"]) == (66.5, 60.0)


async def test_sessions_and_the_energy_outside_are_the_totals_of_the_period(client: httpx.AsyncClient) -> None:
    await assign(client, [("M", "00:00", "V")])
    drawn, driven = [0.0, *[1.0] * 10, *[0.0] * 30, *[0.5] * 20, 0.0], sum(RECUPERATING)
    charged = [0.0, *[0.9] * 10, *[0.0] * 30, *[0.45] * 20, 0.0]
    await store(client, [*ac("10:00", *drawn), *dc("10:00", *charged), *dc("12:00", *RECUPERATING)])
    found = await ask(client, vehicle="V")
    totals = (await client.get("/v1/analytics/performance/V", params=WHOLE_DAY)).json()
    assert len(found) == 2
    assert sum(item["kwhAc"] for item in found) == pytest.approx(totals["totalKwhConsumedAc"], abs=1e-12)
    assert sum(item["kwhDc"] for item in found) + driven == pytest.approx(totals["totalKwhDeliveredDc"], abs=1e-12)


def of(meter: str, first: str, *values: float) -> list[Reading]:
    return [
        reading(METER, meter, at(first) + timedelta(minutes=n), {"kwh_consumed_ac": value})
        for n, value in enumerate(values)
    ]


async def test_meter_and_site_have_the_sessions_of_the_vehicles_and_those_of_nobody(client: httpx.AsyncClient) -> None:
    await declare(client, M1="North", M2="North", M3="South")
    await assign(client, [("M1", "00:00", "V"), ("M1", "12:00", None), ("M2", "00:00", "W"), ("M3", "00:00", "V")])
    for meter, hours in (("M1", (9, 13)), ("M2", (10,)), ("M3", (11,))):
        for hour in hours:
            await store(client, of(meter, f"{hour}:00", 0.0, *[1.0] * 10, 0.0))
    brief = [(item["vehicleId"], item["meterIds"], item["site"]) for item in await ask(client, site="North")]
    assert brief == [("V", ["M1"], "North"), ("W", ["M2"], "North"), (None, ["M1"], "North")]
    brief = [(item["vehicleId"], item["meterIds"], item["site"]) for item in await ask(client, vehicle="V")]
    assert brief == [("V", ["M1"], "North"), ("V", ["M3"], "South")]
    brief = [(item["vehicleId"], item["meterIds"], item["kwhAc"]) for item in await ask(client, meter="M1")]
    assert brief == [("V", ["M1"], 10.0), (None, ["M1"], 10.0)]


async def test_vehicle_at_two_meters_of_a_site_has_one_session(client: httpx.AsyncClient) -> None:
    await declare(client, M1="North", M2="North")
    await assign(client, [("M1", "00:00", "V"), ("M2", "00:00", "V")])
    await store(client, [*of("M1", "10:00", 0.0, *[1.0] * 10, 0.0), *of("M2", "10:05", 0.0, *[0.5] * 10, 0.0)])
    expected = [session("10:00", "10:15", meterIds=["M1", "M2"], kwhAc=15.0, peakKw=90.0, meanKw=60.0)]
    for query in ({"site": "North"}, {"meter": "M2"}, {"vehicle": "V"}):
        assert [{key: item[key] for key in expected[0]} for item in await ask(client, **query)] == expected


async def test_pages_are_the_list_and_name_the_algorithm(client: httpx.AsyncClient) -> None:
    await store(client, [r for hour in range(6) for r in of("M", f"{hour:02}:30", 0.0, *[1.0] * 5, 0.0)])
    await store(client, of("M", "06:30", 0.0))
    whole = await ask(client, meter="M")
    assert len(whole) == 6
    paged: list[dict[str, Any]] = []
    query: dict[str, str] | None = WHOLE_DAY | {"meter": "M", "limit": "4"}
    while query is not None:
        answer = await client.get("/v1/sessions", params=query)
        page = answer.json()
        assert page["algorithm"] == {"name": "inflow", "version": 3}
        paged += page["items"]
        query = None if page["nextCursor"] is None else query | {"cursor": page["nextCursor"]}
        assert ("Link" in answer.headers) == (query is not None)
    assert paged == whole


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({}, 422, "vehicle"),
        ({"vehicle": "V", "meter": "M"}, 422, "meter"),
        ({"vehicle": "not an id"}, 422, "vehicle"),
        ({"vehicle": "V", "cursor": "bm90IGEgY3Vyc29y"}, 422, "cursor"),
        ({"vehicle": "V", "limit": "0"}, 422, "limit"),
        ({"vehicle": "V", "tz": "UTC"}, 422, "tz"),
        ({"vehicle": "V", "from": WHOLE_DAY["to"]}, 422, "from"),
        ({"vehicle": "NEVER"}, 404, None),
        ({"meter": "NEVER"}, 404, None),
        ({"site": "Nowhere"}, 404, None),
    ],
)
async def test_bad_question_is_refused(
    client: httpx.AsyncClient, query: dict[str, str], status: int, field: str | None
) -> None:
    answer = await client.get("/v1/sessions", params=WHOLE_DAY | query)
    assert answer.status_code == status, answer.text
    if field is not None:
        assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_too_much_work_is_refused_and_says_what_to_narrow(client: httpx.AsyncClient) -> None:
    rows = "".join(f"M{n},North\r\n" for n in range(401))
    headers = {"Content-Type": "text/csv"}
    imported = await client.post("/v1/devices/meters", content="id,site\r\n" + rows, headers=headers)
    assert imported.status_code == 200, imported.text
    answer = await client.get("/v1/sessions", params=WHOLE_DAY | {"site": "North"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "site")
    await declare(client, **{f"S{n}": "South" for n in range(10)})
    assert await ask(client, site="South") == []
    days = {"from": format_timestamp(DAY - timedelta(days=50)), "to": format_timestamp(DAY)}
    answer = await client.get("/v1/sessions", params=days | {"site": "South"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "from")
    assert "10 devices over 50.0 days" in answer.json()["detail"]


async def test_both_sides_of_a_recorded_fast_charge_are_one_session(client: httpx.AsyncClient) -> None:
    charger = list(ev_charger(recording("ev_fast_charge_charger.csv"), DeviceId("M")))
    car = list(ev_vehicle(recording("ev_fast_charge_vehicle.csv"), DeviceId("V")))
    await assign(client, [("M", "00:00", "V")])
    await store(client, shift([*charger, *car], at("12:00")))
    (found,) = await ask(client, vehicle="V")
    totals = (await client.get("/v1/analytics/performance/V", params=WHOLE_DAY)).json()
    assert found["kwhAc"] == totals["totalKwhConsumedAc"] == pytest.approx(5.44362, abs=1e-5)
    assert found["kwhDc"] == totals["chargeKwhDc"]
    assert (found["efficiency"], found["coverage"]) == (pytest.approx(0.98, abs=0.005), 1.0)
    assert (found["socFrom"], found["socTo"]) == (86.69, 93.38)
    assert (found["openStart"], found["openEnd"]) == (False, False)
    outside = [r.kwh_delivered_dc for r in car if r.timestamp not in {m.timestamp for m in charger}]
    assert found["kwhDc"] + sum(outside) == pytest.approx(totals["totalKwhDeliveredDc"], abs=1e-12)
