"""The OpenAPI document: FastAPI's part for its routes, the ingest route, and the parts that are common to all."""

from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import MEDIA_TYPE
from api.routing import Limited, PlainRoute, access, limited, needs, only_seen
from bridge.contract import KINDS, Kind
from bridge.formats import FORMATS, contract_json
from bridge.reading import DEVICE_ID_PATTERN


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _reading(kind: Kind) -> dict[str, Any]:
    """The schema of a reading: id, timestamp and at least one measure; other fields are kept as `extra`."""
    measures = {
        m.name: {"type": ["number", "null"], "minimum": m.least, "maximum": m.most, "description": m.description}
        for m in kind.measures
    }
    return {
        "type": "object",
        "required": [kind.id_field, "timestamp"],
        "anyOf": [{"required": [name]} for name in measures],
        "properties": {
            kind.id_field: {"type": "string", "pattern": DEVICE_ID_PATTERN},
            **measures,
            "timestamp": {"type": "string", "format": "date-time", "description": "Device time, with an offset."},
        },
        "example": kind.example,
    }


def _schema_name(kind: Kind) -> str:
    return f"{kind.name.capitalize()}Reading"


_SCHEMAS: dict[str, Any] = {
    **{_schema_name(kind): _reading(kind) for kind in KINDS},
    "Reading": {"oneOf": [_ref(_schema_name(kind)) for kind in KINDS]},
    "Rejection": {
        "type": "object",
        "required": ["index", "reason"],
        "properties": {"index": {"type": "integer"}, "reason": {"type": "string"}},
    },
    "Receipt": {
        "type": "object",
        "required": ["stored", "duplicates", "rejected"],
        "properties": {
            "stored": {"type": "integer"},
            "duplicates": {"type": "integer"},
            "rejected": {"type": "array", "items": _ref("Rejection")},
            "warnings": {
                "type": "array",
                "items": _ref("ReadingWarning"),
                "description": "Warnings about stored readings; absent if there are none.",
            },
        },
    },
    "DurableReceipt": {
        "type": "object",
        "required": ["durable", "rejected"],
        "properties": {
            "durable": {
                "type": "integer",
                "description": "Elements that the stream has, and that a bridge will judge: what is no reading becomes "
                "a reject.",
            },
            "rejected": {
                "type": "array",
                "items": _ref("Rejection"),
                "description": "Elements that name no device, or one that the key may not report. They are kept "
                "nowhere.",
            },
        },
    },
    "ReadingWarning": {
        "type": "object",
        "required": ["index", "field", "reason"],
        "properties": {"index": {"type": "integer"}, "field": {"type": "string"}, "reason": {"type": "string"}},
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    },
}


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}


def _receipt(text: str, *names: str) -> dict[str, Any]:
    """An answer with one of these receipts."""
    one = _ref(names[0]) if len(names) == 1 else {"anyOf": [_ref(name) for name in names]}
    return {"description": text, "content": {"application/json": {"schema": one}}}


INGEST: dict[str, Any] = needs("ingest", only_seen()) | {
    "tags": ["ingest"],
    "summary": "Store readings",
    "operationId": "ingestReadings",
    "description": "One reading, a JSON array, or NDJSON, plain or gzip. Up to 10,000 readings and 8 MiB. Answers "
    "after the commit, or after a stream's acknowledgement; sending the same readings again stores nothing twice.",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"anyOf": [_ref("Reading"), {"type": "array", "items": _ref("Reading"), "maxItems": 10_000}]},
                "examples": {
                    **{kind.name: {"summary": f"One {kind.name}", "value": kind.example} for kind in KINDS},
                    "several": {"summary": "Several devices", "value": [kind.example for kind in KINDS]},
                },
            },
            **{
                format_.content_types[0]: {"schema": {"type": "string", "description": format_.description}}
                for format_ in FORMATS
                if format_ is not contract_json.FORMAT
            },
        },
    },
    "responses": {
        "201": _receipt("All readings are stored, now or earlier", "Receipt"),
        "202": _receipt("All are durable in the stream, not yet judged (`FLEET_HTTP_INGEST_TARGET`)", "DurableReceipt"),
        "207": _receipt(
            "Some readings were rejected; the others are stored, or durable in the stream", "Receipt", "DurableReceipt"
        ),
        "400": _problem("Not JSON"),
        "408": _problem("The body did not arrive in time"),
        "413": _problem("More than 10,000 readings or 8 MiB"),
        "415": _problem("Unsupported Content-Type, or an encoding other than gzip"),
        "422": _problem("All readings were rejected; the problem contains the receipt"),
    },
}
_ALWAYS = {
    "401": _problem("No API key, or an unknown, expired or revoked one"),
    "403": _problem("The API key lacks the scope, or is limited to other devices or sites"),
    "429": _problem("Too many requests with this key; retry after Retry-After"),
    "431": _problem("The request line and its headers are too long"),
    "503": _problem("The database, or the stream for readings, is unavailable; retry after Retry-After"),
}


def install(app: FastAPI) -> None:
    """Make `app` serve the complete document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    document["paths"] = {path: {} for path in _plain(app)} | document["paths"]
    for path, operations in _plain(app).items():
        document["paths"][path] |= operations
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(_SCHEMAS)
    components["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    for operations in document["paths"].values():
        for operation in operations.values():
            _finish(operation)
    for unused in ("HTTPValidationError", "ValidationError"):  # validation errors are problems here
        components["schemas"].pop(unused, None)
    return document


def _plain(app: FastAPI) -> dict[str, dict[str, Any]]:
    """The operations of the routes outside the framework, by path and method."""
    plain = [route for route in app.routes if isinstance(route, PlainRoute)]
    return {
        each.path: {method.lower(): deepcopy(each.openapi_extra) for method in each.methods or ()} for each in plain
    }


def _finish(operation: dict[str, Any]) -> None:
    """Declare that errors are problems, and that every route that is not public needs a key."""
    responses = operation["responses"]
    if responses.get("422", {}).get("description", "Validation Error") == "Validation Error":
        responses["422"] = {"description": "Validation failed; `detail` names the field and the reason"}
    if any(parameter["name"] == "asOf" for parameter in operation.get("parameters", ())):
        responses.setdefault("410", {"description": "`asOf` is a position from before a failover"})
    for status in filter(lambda status: status >= "400", responses):
        responses[status] = _problem(responses[status]["description"])
    needed = access(operation)
    if needed != "public":
        key = "Needs any valid key." if needed == "any key" else f"Needs the scope `{needed}`."
        operation["description"] = f"{operation.get('description', '')} {key}{_of_limited(limited(operation))}"
        operation["responses"] = responses | _ALWAYS


def _of_limited(found: Limited | None) -> str:
    """What a key gets that is limited to devices or sites."""
    if found is None or found.gets == "all":
        return ""
    if found.gets == "nothing":
        return " It is closed to keys that are limited to devices or sites."
    names = " or ".join(f"`{name}`" for name in found.names)
    refused = f" 403 if {names} is not one that the key is limited to." if names else ""
    answered = " A key that is limited to devices or sites concerns these only." if found.gets == "seen" else ""
    return answered + refused
