"""Compares the contract with everything that repeats it: tables, OpenAPI, access list, keys, CSV, docs, validator.

Each comparison is also made with a kind that differs in one place, and must then fail: a limit, a unit or a name that
is changed in only one place does not pass.
"""

import csv
import dataclasses
import io
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.sight import is_device_pattern
from bridge.contract import KIND_OF, KINDS, Kind, Measure
from bridge.errors import Rejected
from bridge.formats import decode_message
from bridge.formats.contract_json import encode
from bridge.formats.port import AcceptedWindow
from bridge.reading import Flagged, Reading, reading
from mosquitto.broker import access_list
from tests.integration.api.server import Connection
from tests.readings import now_minute

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).resolve().parents[3] / "docs" / "devices.md"
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
_COLUMNS = (
    "SELECT column_name, data_type, is_nullable, collation_name FROM information_schema.columns "
    "WHERE table_schema = current_schema() AND table_name = $1"
)
_FLOAT, _TIME = ("double precision", "YES", None), ("timestamp with time zone", "NO", None)


def with_another(kind: Kind, **change: Any) -> Kind:
    """The kind with one measure that differs."""
    return dataclasses.replace(kind, measures=(*kind.measures[:-1], kind.measures[-1]._replace(**change)))


async def compare_tables(kind: Kind, db: Connection) -> None:
    expected = {
        kind.id_column: ("text", "NO", "C"),
        "ts": _TIME,
        "received_at": _TIME,
        **{measure.column: _FLOAT for measure in kind.measures},
        "extra": ("jsonb", "YES", None),
    }
    for table in (kind.history_table, kind.live_table):
        assert {row[0]: tuple(row)[1:] for row in await db.fetch(_COLUMNS, table)} == expected


def compare_document(kind: Kind, document: dict[str, Any]) -> None:
    schemas, name = document["components"]["schemas"], kind.name.capitalize()
    taken = schemas[f"{name}Reading"]
    assert list(taken["properties"]) == [kind.id_field, *[m.name for m in kind.measures], "timestamp"]
    assert taken["required"] == [kind.id_field, "timestamp"]
    assert taken["anyOf"] == [{"required": [m.name]} for m in kind.measures]
    for measure in kind.measures:
        schema = taken["properties"][measure.name]
        assert schema["type"] == ["number", "null"]
        assert described(schema) == described_by(measure)
    answered = schemas[f"{name}State"]["properties"]
    assert list(answered) == [kind.id_field, *[m.name for m in kind.measures], "timestamp", "receivedAt", "extra"]
    for measure in kind.measures:
        number, null = answered[measure.name]["anyOf"]
        assert null == {"type": "null"}
        assert described({**number, "description": answered[measure.name]["description"]}) == described_by(measure)
    for path in (
        f"/v1/live/{kind.plural}",
        *(f"/v1/{q}/{kind.plural}/{{{kind.id_field}}}" for q in ("live", "history")),
    ):
        assert path in document["paths"]


def described(schema: dict[str, Any]) -> tuple[Any, ...]:
    return schema["minimum"], schema["maximum"], schema["description"]


def described_by(measure: Measure) -> tuple[Any, ...]:
    return measure.least, measure.most, f"{measure.meaning}, {measure.unit}."


def compare_access_list(kind: Kind, text: str) -> None:
    """What the bridge and the gateway may do is said for each kind; a device's own lines name no kind."""
    rules: dict[str, set[str]] = {}
    user = ""
    for line in text.splitlines():
        if line.startswith("user "):
            user = line
        elif line.startswith("topic "):
            rules.setdefault(user, set()).add(line)
    telemetry, below = kind.topic("+"), f"fleet/{kind.name}/#"
    assert {f"topic read {telemetry}", f"topic write {below}"} <= rules["user bridge"]
    assert {f"topic write {telemetry}", f"topic read {below}"} <= rules["user gateway"]


def compare_page(kind: Kind, page: str) -> None:
    for m in kind.measures:
        assert f"| `{m.name}` | {m.sort} | {m.unit} | {m.least:,.10g} to {m.most:,.10g} | {m.meaning} |" in page


def compare_validator(kind: Kind) -> None:
    """Each limit is an accepted value; the next number beyond it is not."""
    for measure in kind.measures:
        for limit, beyond in ((measure.least, -math.inf), (measure.most, math.inf)):
            at_limit, outside = decode(kind, measure, limit), decode(kind, measure, math.nextafter(limit, beyond))
            assert isinstance(at_limit, Reading)
            assert at_limit.values() == {measure.name: limit}
            assert isinstance(outside, Rejected), "alone a bad gauge leaves no measure"
            assert outside.detail.startswith(f"{measure.name}: Input should be")


def decode(kind: Kind, measure: Measure, value: float) -> Reading | Flagged | Rejected:
    """The decoded items of a reading with only this value, by its JSON name."""
    at = now_minute()
    payload = f'{{"{kind.id_field}": "D_1", "{measure.name}": {value!r}, "timestamp": "{at.isoformat()}"}}'
    times = AcceptedWindow(timedelta(days=1), timedelta(minutes=5)).at(at)
    (item,) = decode_message(kind.topic("D_1"), payload.encode(), times)
    return item


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


@EVERY_KIND
async def test_tables_are_those_of_the_contract(kind: Kind, db: Connection) -> None:
    await compare_tables(kind, db)
    with pytest.raises(AssertionError):
        await compare_tables(with_another(kind, name="another"), db)
    with pytest.raises(AssertionError):
        await compare_tables(dataclasses.replace(kind, measures=kind.measures[:-1]), db)


@EVERY_KIND
async def test_document_is_that_of_the_contract(kind: Kind, document: dict[str, Any]) -> None:
    compare_document(kind, document)
    for change in ({"name": "another"}, {"least": -1e6}, {"most": 1e6}, {"unit": "MW"}, {"meaning": "Another"}):
        with pytest.raises(AssertionError):
            compare_document(with_another(kind, **change), document)


async def test_document_has_no_other_kind(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["Reading"] == {
        "oneOf": [{"$ref": f"#/components/schemas/{kind.name.capitalize()}Reading"} for kind in KINDS]
    }


@EVERY_KIND
def test_access_list_is_that_of_the_contract(kind: Kind) -> None:
    compare_access_list(kind, access_list())
    with pytest.raises(AssertionError):
        compare_access_list(dataclasses.replace(kind, name="another"), access_list())


def test_access_list_names_no_other_kind() -> None:
    rules = [line for line in access_list().splitlines() if line.startswith("topic") and "fleet/" in line]
    named = {rule.split("fleet/")[1].split("/")[0] for rule in rules}
    assert named == {*KIND_OF, "bridge", "alarm"}
    assert "{kind}" not in "".join(rules)


@EVERY_KIND
def test_page_is_that_of_the_contract(kind: Kind) -> None:
    compare_page(kind, PAGE.read_text())
    for change in ({"name": "another"}, {"least": -1e6}, {"most": 1e6}, {"unit": "MW"}, {"sort": "interval"}):
        with pytest.raises(AssertionError):
            compare_page(with_another(kind, **change), PAGE.read_text())


@EVERY_KIND
def test_validator_is_that_of_the_contract(kind: Kind) -> None:
    compare_validator(kind)
    for change in ({"name": "another"}, {"least": -1e6}, {"most": 1e6}, {"most": 10.0}):
        with pytest.raises(AssertionError):
            compare_validator(with_another(kind, **change))


@EVERY_KIND
def test_key_may_name_devices_of_every_kind_and_of_no_other(kind: Kind) -> None:
    assert is_device_pattern(f"{kind.name}:D_1")
    assert is_device_pattern(f"{kind.name}:D_*")
    assert not is_device_pattern(f"{kind.name}s:D_1")


@EVERY_KIND
async def test_csv_has_the_columns_of_the_contract(kind: Kind, client: httpx.AsyncClient) -> None:
    values = {measure.column: measure.most for measure in kind.measures}
    assert (
        await client.post("/v1/ingest", content=encode(reading(kind, "D_1", now_minute(), values)))
    ).status_code == 201
    answer = await client.get(f"/v1/history/{kind.plural}/D_1", headers={"Accept": "text/csv"})
    (row,) = csv.DictReader(io.StringIO(answer.text))
    names = [measure.name for measure in kind.measures]
    assert list(row) == [kind.id_field, *names, "timestamp", "receivedAt", "extra"]
    assert {name: float(row[name]) for name in names} == {m.name: m.most for m in kind.measures}
