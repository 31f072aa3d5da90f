"""Every list and figure as CSV has what its JSON has, in the form that spreadsheets and RFC 4180 require."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest

from bridge.contract import METER, VEHICLE
from bridge.formats.contract_json import encode_many
from bridge.reading import format_timestamp, reading
from tests.integration.api.server import Api, assert_problem
from tests.integration.api.test_figures import DAY, at

pytestmark = pytest.mark.anyio

THAT_DAY = {"from": format_timestamp(DAY), "to": format_timestamp(DAY + timedelta(days=1))}
SITE = '=HYPERLINK("http://x"), 2'
CAR, METER_ID = "-EV_1", "-M_1"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").fullmatch
_MICROSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z").fullmatch
Document = dict[str, Any]


class Question(NamedTuple):
    """A question, and which rows its CSV has."""

    path: str
    file: str
    query: dict[str, str] = {}  # noqa: RUF012
    rows: Callable[[Document], list[Document]] = lambda document: document["items"]
    """The rows of a JSON page."""
    is_paged: bool = True
    left_out: tuple[str, ...] = ()
    """Members that have no column."""


def _columns_of_series(document: Document) -> list[Document]:
    return [{"measure": one["measure"], **column} for one in document["series"] for column in one["columns"]]


def _sessions(document: Document) -> list[Document]:
    made_by = document["algorithm"]
    return [item | {"algorithm": f"{made_by['name']}/{made_by['version']}"} for item in document["items"]]


QUESTIONS = {
    "history of a vehicle": Question(f"/v1/history/vehicles/{CAR}", f"history-vehicle-{CAR}", THAT_DAY),
    "history of a meter": Question(f"/v1/history/meters/{METER_ID}", f"history-meter-{METER_ID}", THAT_DAY),
    "live vehicles": Question("/v1/live/vehicles", "live-vehicles"),
    "live meters": Question("/v1/live/meters", "live-meters"),
    "declared vehicles": Question("/v1/devices/vehicles", "declared-vehicles"),
    "declared meters": Question("/v1/devices/meters", "declared-meters"),
    "assignments": Question("/v1/assignments", "assignments", left_out=("assignedAt",)),
    "energy of sites": Question("/v1/analytics/energy", "energy-sites", THAT_DAY | {"of": "sites", "bucket": "hour"}),
    "energy of vehicles": Question(
        "/v1/analytics/energy", "energy-vehicles", THAT_DAY | {"of": "vehicles", "bucket": "15m", "tz": "Asia/Kolkata"}
    ),
    "energy of the fleet": Question("/v1/analytics/energy", "energy-fleet", THAT_DAY | {"of": "fleet"}),
    "sessions of a site": Question("/v1/sessions", "sessions-site", THAT_DAY | {"site": SITE}, _sessions),
    "sessions of a vehicle": Question(
        "/v1/sessions", f"sessions-vehicle-{CAR}", THAT_DAY | {"vehicle": CAR}, _sessions
    ),
    "series": Question(
        f"/v1/analytics/series/vehicles/{CAR}",
        f"series-vehicle-{CAR}",
        THAT_DAY | {"measure": "kwhDeliveredDc,powerKw,soc"},
        _columns_of_series,
        is_paged=False,
    ),
    "performance": Question(
        f"/v1/analytics/performance/{CAR}",
        f"performance-{CAR}",
        THAT_DAY,
        lambda document: [document],
        is_paged=False,
        left_out=("gaps", "meters"),
    ),
}
EVERY = pytest.mark.parametrize("question", [pytest.param(each, id=name) for name, each in QUESTIONS.items()])


@pytest.fixture
async def fleet(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Two chargers and two vehicles with negative figures, times of every precision, and texts that are formulas."""
    for kind, ids in (("vehicles", (CAR, "EV_2")), ("meters", (METER_ID, "M_2"))):
        rows = [
            {"id": ids[0], "name": "@SUM(A1)\u00e4", "site": SITE, "tags": ["=1+1", "a,b"], "intervalS": 60},
            {"id": ids[1], "name": "'=x", "site": "Depot", "ratedKw": 22.5, "timeZone": "Asia/Kolkata"},
        ]
        assert (await client.post(f"/v1/devices/{kind}", json=rows)).is_success
    rows = [
        {"meterId": METER_ID, "vehicleId": CAR, "from": format_timestamp(at("00:00"))},
        {"meterId": "M_2", "vehicleId": "EV_2", "from": "2026-02-10T10:15:00.25Z", "to": "2026-02-10T10:15:01Z"},
        {"meterId": "M_2", "vehicleId": CAR, "from": format_timestamp(at("05:00:00.000001"))},
    ]
    assert (await client.post("/v1/assignments", json=rows)).is_success
    charge, drive = [0.0, *[1.0] * 10, 0.0], [-0.6] * 10
    readings = []
    for meter_id, hour in ((METER_ID, 1), ("M_2", 7), (METER_ID, 11)):
        for n, kwh in enumerate(charge):
            time = at(f"{hour}:{n}:{n / 8}")
            readings.append(reading(METER, meter_id, time, {"kwh_consumed_ac": kwh, "voltage": 230.0}))
            readings.append(reading(VEHICLE, CAR, time, {"kwh_delivered_dc": 0.9 * kwh, "power_kw": -0.0000001 * n}))
    readings += [
        reading(VEHICLE, CAR, at(f"15:{n}"), {"kwh_delivered_dc": kwh, "soc": 50.0 - n}, {"note": '=a "b",\n\u00e4'})
        for n, kwh in enumerate(drive)
    ]
    readings.append(reading(VEHICLE, "EV_2", at("03:00"), {"soc": 50.0}, {"-": "@"}))
    assert (await client.post("/v1/ingest", content=encode_many(readings))).status_code == 201
    return client


async def ask_csv(client: httpx.AsyncClient, question: Question, **query: str) -> httpx.Response:
    answer = await client.get(question.path, params=question.query | query, headers={"Accept": "text/csv"})
    assert answer.status_code == 200, answer.text
    return answer


async def json_rows(client: httpx.AsyncClient, question: Question, **query: str) -> list[Document]:
    """The rows of all JSON pages."""
    found: list[Document] = []
    while True:
        answer = await client.get(question.path, params=question.query | query)
        assert answer.status_code == 200, answer.text
        found += question.rows(answer.json())
        cursor = answer.json().get("nextCursor")
        if cursor is None:
            return [{name: row[name] for name in row if name not in question.left_out} for row in found]
        query["cursor"] = cursor


def table(text: str) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert all(None not in row and None not in row.values() for row in rows), "as many cells as columns"
    return rows


_V = TypeVar("_V")


def without_age(rows: Iterable[Mapping[str, _V]]) -> list[dict[str, _V]]:
    """The rows without the age of a live state, which is another one in each answer."""
    return [{name: value for name, value in row.items() if name != "ageSeconds"} for row in rows]


def is_same(cell: str, value: object) -> bool:
    """Whether a cell says what a JSON value says."""
    match value:
        case None:
            return cell == ""
        case bool():
            return cell == str(value).lower()
        case int() | float():
            return float(cell) == value and cell != "" and cell[0] in "-0123456789"
        case dict():
            return bool(json.loads(cell) == value)
        case list():
            return is_same(cell, ";".join(value))
        case str() if _TIME(value):
            return bool(_MICROSECONDS(cell)) and datetime.fromisoformat(cell) == datetime.fromisoformat(value)
        case str():
            return cell == (f"'{value}" if value.lstrip("'")[:1] in tuple("=+-@\t\r") else value)
    raise AssertionError(value)


@EVERY
async def test_csv_has_the_rows_of_all_json_pages(question: Question, fleet: httpx.AsyncClient) -> None:
    limit = {"limit": "2"} if question.is_paged else {}
    expected = await json_rows(fleet, question, **limit)
    assert expected
    found = table((await ask_csv(fleet, question, **limit)).text)
    assert found[0].keys() == expected[0].keys()
    assert len(found) == len(expected)
    wrong = [
        (name, cell, row[name])
        for cells, row in zip(without_age(found), expected, strict=True)
        for name, cell in cells.items()
        if not is_same(cell, row[name])
    ]
    assert wrong == []


@EVERY
async def test_csv_is_canonical_rfc_4180(question: Question, fleet: httpx.AsyncClient) -> None:
    """Written by another writer with CRLF, and quotes where they are needed, it is the same text."""
    body = (await ask_csv(fleet, question)).content
    rows = list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))
    again = io.StringIO(newline="")
    csv.writer(again, lineterminator="\r\n").writerows(rows)
    assert again.getvalue().encode() == body
    assert len({len(row) for row in rows}) == 1


@EVERY
async def test_csv_is_downloaded_as_a_file(question: Question, fleet: httpx.AsyncClient) -> None:
    asked = await ask_csv(fleet, question)
    assert asked.headers["content-type"] == "text/csv; charset=utf-8"
    assert asked.headers["content-disposition"] == f'attachment; filename="{question.file}.csv"'
    headed = await fleet.head(question.path, params=question.query, headers={"Accept": "text/csv"})
    assert (headed.status_code, headed.content) == (200, b"")
    as_json = await fleet.get(question.path, params=question.query)
    assert as_json.headers["content-type"] == "application/json"
    assert "content-disposition" not in as_json.headers
    for name in ("content-type", "content-disposition", "vary"):
        assert headed.headers[name] == asked.headers[name]
    assert {each.headers["vary"] for each in (asked, headed, as_json)} == {"Accept"}
    assert not {"link", "x-next-cursor", "content-length"} & asked.headers.keys()


@EVERY
async def test_other_media_types_are_refused(question: Question, fleet: httpx.AsyncClient) -> None:
    answer = await fleet.get(question.path, params=question.query, headers={"Accept": "image/png"})
    assert_problem(answer, 406, "application/json and text/csv")


@pytest.mark.parametrize("question", [each for each in QUESTIONS.values() if each.is_paged], ids=lambda q: q.file)
async def test_csv_begins_at_a_cursor(question: Question, fleet: httpx.AsyncClient) -> None:
    page = (await fleet.get(question.path, params=question.query | {"limit": "1"})).json()
    whole = table((await ask_csv(fleet, question)).text)
    if page["nextCursor"] is None:
        assert len(whole) == 1
    else:
        rest = table((await ask_csv(fleet, question, cursor=page["nextCursor"])).text)
        assert without_age(rest) == without_age(whole[1:])


async def test_an_unknown_device_is_a_problem_in_csv_too(client: httpx.AsyncClient) -> None:
    for path in ("/v1/history/vehicles/X", "/v1/analytics/series/vehicles/X?measure=soc", "/v1/sessions?vehicle=X",
                 "/v1/analytics/performance/X", "/v1/analytics/energy?of=vehicles&id=X"):  # fmt: skip
        assert_problem(await client.get(path, headers={"Accept": "text/csv"}), 404, "was ever stored")


async def test_an_empty_list_is_a_header(client: httpx.AsyncClient) -> None:
    text = (await client.get("/v1/live/meters", headers={"Accept": "text/csv"})).text
    names = ["meterId", *(measure.name for measure in METER.measures), "timestamp", "receivedAt", "extra"]
    names += ["silent", "ageSeconds"]
    assert text == ",".join(names) + "\r\n"


def test_openapi_has_the_csv_of_each(api: Api) -> None:
    paths = httpx.get(f"{api.url}/openapi.json").json()["paths"]
    for question in QUESTIONS.values():
        path = re.sub(r"/(vehicles|performance)/-.*", r"/\1/{vehicleId}", question.path)
        responses = paths[path.replace(METER_ID, "{meterId}")]["get"]["responses"]
        assert responses["200"]["content"].keys() == {"application/json", "text/csv"}
        assert "406" in responses
