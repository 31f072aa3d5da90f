"""Valid and invalid requests according to the OpenAPI document get documented responses, never a 5xx.

The number of requests is a tenth of FLEET_FUZZ, because schemathesis needs time to generate each request.
"""

import json
import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api import keys
from api.auth import ID_PATTERN
from api.patterns import REQUIRED, RULE_PATTERN, TIME_ZONE_PATTERN, WEBHOOK_PATTERN
from bridge.contract import KINDS
from bridge.formats.contract_json import encode_many
from bridge.reading import DEVICE_ID_PATTERN
from local.postgres import Postgres
from tests.fuzzing import COUNT, SEED
from tests.integration.api.event_stream import PATH as STREAM
from tests.integration.api.server import Api, Connection
from tests.readings import meter, now_minute, vehicle

IDS = ["EV_1", "EV_2"]
RULES, WEBHOOKS, ALARMS = ["silent", "soc-low"], ["wh_0123456789abcdef"], 10
KEY_IDS = ["keykeykeykey", "keykeykey000"]
REJECTS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(3)]
ASSIGNED_FROM = "2026-02-10T10:15:00Z"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
async def token(db: Connection) -> str:
    """A key that may call every route."""
    return (await keys.create(db, "test", keys.Grant(("admin",))))[1]


@pytest.mark.usefixtures("anyio_backend")
def test_error_says_in_words_what_each_pattern_requires(api: Api, token: str) -> None:
    patterns = set(re.findall(r'"pattern": ("(?:[^"\\\\]|\\\\.)*")', json.dumps(_document(api))))
    assert {json.loads(pattern) for pattern in patterns} == set(REQUIRED)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=api.url, headers=headers) as client:
        for path, detail in {
            "/v1/live/vehicles/EV%202": f"vehicleId: {REQUIRED[DEVICE_ID_PATTERN]}",
            "/v1/analytics/energy?of=vehicles&id=EV_1&id=EV.2": f"id[1]: {REQUIRED[DEVICE_ID_PATTERN]}",
        }.items():
            answer = client.get(path)
            assert (answer.status_code, answer.json()["detail"]) == (422, detail)


@pytest.mark.usefixtures("anyio_backend")
def test_what_is_allowed_is_answered_as_documented(api: Api, token: str, postgres: Postgres) -> None:
    operations = _operations(_narrowed(_document(api)))
    assert len(operations) >= 14
    for operation in operations:
        _declare(api, token, postgres)
        answered = _ask(operation, GenerationMode.POSITIVE, _count(operations), api.url, token)
        assert answered & {200, 201, 204, 207}, f"{operation.label} never succeeded: {answered}"
    assert api.process.running


@pytest.mark.usefixtures("anyio_backend")
def test_what_is_not_allowed_is_answered_as_documented(api: Api, token: str) -> None:
    operations = [each for each in _operations(_document(api)) if each.body or list(each.iter_parameters())]
    assert len(operations) >= 10
    for operation in operations:
        _ask(operation, GenerationMode.NEGATIVE, _count(operations), api.url, token)
    assert api.process.running


def test_every_reference_leads_to_a_schema(api: Api) -> None:
    document = _document(api)
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= document["components"]["schemas"].keys()


def test_live_stream_is_documented_as_events(api: Api) -> None:
    operation = _document(api)["paths"][STREAM]["get"]
    assert operation["responses"]["200"]["content"].keys() == {"text/event-stream"}
    named = {(each["in"], each["name"]) for each in operation["parameters"]}
    assert named == {("query", "kind"), ("query", "site"), ("query", "ids"), ("header", "Last-Event-ID")}


def test_routes_of_every_kind_have_readable_operation_ids(api: Api) -> None:
    document = _document(api)
    found = {each["operationId"] for operations in document["paths"].values() for each in operations.values()}
    for kind in KINDS:
        one, many = kind.name.capitalize(), kind.plural.capitalize()
        assert {f"{verb}Declared{one}" for verb in ("get", "put", "patch", "delete")} <= found
        assert {f"listDeclared{many}", f"importDeclared{many}"} <= found
        answers = document["paths"][f"/v1/devices/{kind.plural}"]["get"]["responses"]["200"]["content"]
        assert answers.keys() == {"application/json", "text/csv"}
    assert {f"{verb}Assignment" for verb in ("put", "patch", "delete")} | {"listAssignments"} <= found


def _document(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{api.url}/openapi.json").json()
    return document


def _declare(api: Api, token: str, postgres: Postgres) -> None:
    """Declare the devices, store a reading of each, assign the meters and have the keys of the requests, so that
    operations do not affect each other and each can succeed."""
    values = ", ".join(f"('{id_}', 'a key', '', '{{read}}')" for id_ in KEY_IDS)
    unrevoked = "ON CONFLICT (id) DO UPDATE SET revoked_at = NULL"
    postgres.sql(f"INSERT INTO api_key (id, name, hash, scopes) VALUES {values} {unrevoked}", "api")
    postgres.sql(
        f"DELETE FROM alarm_delivery; DELETE FROM alarm; DELETE FROM alarm_webhook; "
        f"INSERT INTO alarm_webhook (id, url, secret) VALUES ('{WEBHOOKS[0]}', 'http://a/', 's'); "
        "INSERT INTO alarm (id, rule, measure, severity, value, bound, unit, message) OVERRIDING SYSTEM VALUE "
        f"SELECT n, 'silent-' || n, 'soc', 'info', 1, 5, '%', '' FROM generate_series(1, {ALARMS}) AS n",
        "api",
    )
    rejects = ", ".join(f"('{id_}', now(), 'http', 'EV_1', 'not_json', '', '\"')" for id_ in REJECTS)
    postgres.sql(
        "INSERT INTO rejected_message (id, received_at, source, device, reason, detail, payload) "
        f"VALUES {rejects} ON CONFLICT DO NOTHING",
        "api",
    )
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}) as client:
        for kind in KINDS:
            assert client.post(f"/v1/devices/{kind.plural}", json=[{"id": id_} for id_ in IDS]).is_success
        readings = encode_many([kind(id_, now_minute()) for id_ in IDS for kind in (vehicle, meter)])
        headers = {"Content-Type": "application/json"}
        assert client.post("/v1/ingest", content=readings, headers=headers).status_code == 201
        rows = [{"meterId": id_, "vehicleId": "EV_1", "from": ASSIGNED_FROM} for id_ in IDS]
        assert client.post("/v1/assignments?replace=true", json=rows).is_success


def _operations(document: dict[str, Any]) -> list[Any]:
    """All operations but the live stream, whose responses do not end (`test_stream.py`)."""
    ending = {path: operations for path, operations in document["paths"].items() if path != STREAM}
    described: list[Any] = list(from_dict(document | {"paths": ending}).get_all_operations())
    return [result.ok() for result in described]


def _count(operations: list[Any]) -> int:
    """Number of requests for each operation: at least ten, so that each succeeds at least once."""
    return max(10, COUNT // 20 // len(operations))


def _narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """Use few devices and minutes, so that readings are stored, repeated and found."""
    text = json.dumps(document)
    time_zones = ["UTC", "Europe/Berlin"]
    patterns = {DEVICE_ID_PATTERN: IDS, ID_PATTERN: KEY_IDS, RULE_PATTERN: RULES, WEBHOOK_PATTERN: WEBHOOKS}
    for pattern, values in (patterns | {TIME_ZONE_PATTERN: time_zones}).items():
        assert f'"pattern": "{pattern}"' in text
        text = text.replace(f'"pattern": "{pattern}"', f'"enum": {json.dumps(values)}')
    few: dict[str, Any] = json.loads(text)
    for operation in (each for operations in few["paths"].values() for each in operations.values()):
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path" and parameter["schema"].get("type") == "integer":
                parameter["schema"]["maximum"] = ALARMS
            if parameter["in"] == "path" and parameter["schema"].get("format") == "uuid":
                parameter["schema"]["enum"] = REJECTS
            if (parameter["in"], parameter["name"]) == ("path", "from"):
                parameter["schema"]["enum"] = [ASSIGNED_FROM]
        csv = operation.get("requestBody", {}).get("content", {}).get("text/csv")
        if csv is not None:  # a text that is CSV of these columns is not drawn by chance
            csv["schema"]["enum"] = [csv["example"]]
    rows = few["paths"]["/v1/assignments"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    bounds = rows["items"]["properties"]
    bounds["from"], bounds["to"] = {"enum": [ASSIGNED_FROM]}, {"enum": [None, "2026-02-10T11:00:00Z"]}
    minutes = [(now_minute() - timedelta(minutes=n)).isoformat() for n in range(1, 50)]
    few["components"]["schemas"]["WebhookBody"]["properties"]["url"]["enum"] = ["http://127.0.0.1:9/"]
    few["components"]["schemas"]["ReplayBody"]["properties"]["ids"]["items"]["enum"] = REJECTS
    for name in ("VehicleReading", "MeterReading"):
        few["components"]["schemas"][name]["properties"]["timestamp"]["enum"] = minutes
    return few


def _ask(operation: Any, mode: GenerationMode, count: int, url: str, token: str) -> set[int]:
    """Send that many requests, check each response, and return the statuses."""
    answered = set()

    @seed(SEED)
    @settings(
        max_examples=max(1, count),
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        authorized = {"Authorization": f"Bearer {token}"}
        answer = case.call_and_validate(url, headers=authorized, checks=CHECKS, allow_redirects=False)
        answered.add(answer.status_code)

    ask()
    return answered
