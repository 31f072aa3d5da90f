"""The OpenAPI document: what FastAPI knows of its routes, the ingest that is none of them, and what holds for all."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.auth import INGEST_PATH, PUBLIC_PATHS, required_scope
from api.problems import MEDIA_TYPE
from bridge.reading import DEVICE_ID_PATTERN

_VEHICLE = {
    "vehicleId": "EV_002",
    "soc": 72.5,
    "kwhDeliveredDc": 4.25,
    "batteryTemp": 38.6,
    "timestamp": "2026-02-10T10:15:00Z",
}
_METER = {"meterId": "METER_001", "kwhConsumedAc": 5.10, "voltage": 231.5, "timestamp": "2026-02-10T10:15:00Z"}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _number(least: float, most: float, text: str) -> dict[str, Any]:
    return {"type": "number", "minimum": least, "maximum": most, "description": text}


def _reading(id_name: str, values: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    properties = {
        id_name: {"type": "string", "pattern": DEVICE_ID_PATTERN},
        **values,
        "timestamp": {"type": "string", "format": "date-time", "description": "Device time, with an offset."},
    }
    return {"type": "object", "required": list(properties), "properties": properties, "example": example}


_SCHEMAS: dict[str, Any] = {
    "VehicleReading": _reading(
        "vehicleId",
        {
            "soc": _number(0, 100, "State of charge, %."),
            "kwhDeliveredDc": _number(-1000, 1000, "kWh into the battery since the last reading, signed."),
            "batteryTemp": _number(-60, 150, "degC."),
        },
        _VEHICLE,
    ),
    "MeterReading": _reading(
        "meterId",
        {
            "kwhConsumedAc": _number(-1000, 1000, "kWh from the grid since the last reading, signed."),
            "voltage": _number(0, 1000, "V."),
        },
        _METER,
    ),
    "Reading": {"oneOf": [_ref("VehicleReading"), _ref("MeterReading")]},
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
        },
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


def _receipt(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _ref("Receipt")}}}


_INGEST: dict[str, Any] = {
    "tags": ["ingest"],
    "summary": "Store readings",
    "operationId": "ingest",
    "description": "One reading, a JSON array, or NDJSON; gzip is taken. Up to 10,000 readings and 8 MiB. Answers "
    "after the commit; sending the same again stores nothing twice.",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"anyOf": [_ref("Reading"), {"type": "array", "items": _ref("Reading"), "maxItems": 10_000}]},
                "examples": {
                    "vehicle": {"summary": "A vehicle's minute", "value": _VEHICLE},
                    "meter": {"summary": "A meter's minute", "value": _METER},
                    "both": {"summary": "Several", "value": [_VEHICLE, _METER]},
                },
            },
            "application/x-ndjson": {"schema": {"type": "string", "description": "A reading a line."}},
        },
    },
    "responses": {
        "201": _receipt("All stored, or stored before"),
        "207": _receipt("Some rejected; the others are stored"),
        "400": _problem("Not JSON"),
        "408": _problem("The body did not arrive in time"),
        "413": _problem("More than 10,000 readings or 8 MiB"),
        "415": _problem("Neither JSON nor NDJSON, or an encoding other than gzip"),
        "422": _problem("All rejected; the problem carries the receipt too"),
    },
}
_ALWAYS = {
    "401": _problem("No API key, or one that is unknown, expired or revoked"),
    "403": _problem("The API key lacks the scope, or may not report the device"),
    "429": _problem("Too many requests with this key; Retry-After says when"),
    "503": _problem("The store is unavailable; Retry-After says when to try again"),
}


def install(app: FastAPI) -> None:
    """Make `app` serve the whole document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    document["paths"] = {INGEST_PATH: {"post": _INGEST}, **document["paths"]}
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(_SCHEMAS)
    components["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _finish(path, method.upper(), operation)
    return document


def _finish(path: str, method: str, operation: dict[str, Any]) -> None:
    """Errors are problems, and everything that is not public needs a key."""
    responses = operation["responses"]
    if responses.get("422", {}).get("description") == "Validation Error":
        responses["422"]["description"] = "Not what it should be; the detail names the field and the reason"
    for status in filter(lambda status: status >= "400", responses):
        responses[status] = _problem(responses[status]["description"])
    if path in PUBLIC_PATHS:
        operation["security"] = []
        return
    operation["security"] = [{"apiKey": []}]
    operation["description"] = f"{operation.get('description', '')} Needs the scope `{required_scope(method, path)}`."
    operation["responses"] = responses | _ALWAYS
