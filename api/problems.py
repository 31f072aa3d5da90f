"""Errors as `application/problem+json` (RFC 9457): type, title, status, detail, and extension members."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.patterns import REQUIRED
from bridge.errors import ClocksDiffer, Misconfigured, ReadOnlyDatabase, StoreUnavailable

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2


class Problem(Exception):
    """An error response. `members` are RFC 9457 extension members."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def body(self) -> bytes:
        """The problem's JSON document."""
        title = HTTPStatus(self.status).phrase
        document = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        return json.dumps(document | self.members).encode()

    def response(self) -> Response:
        """The problem as a response."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)


def unavailable(detail: str, retry_after_s: int = RETRY_AFTER_S) -> Problem:
    """503: failed, or the result is unknown; the request can be sent again, nothing is stored twice."""
    return Problem(503, detail, {"Retry-After": str(retry_after_s)})


def outage(error: StoreUnavailable) -> Problem:
    """503 that says what a client may know: the database is away or accepts no writes, or the clocks differ."""
    return unavailable(outage_text(error))


def outage_text(error: StoreUnavailable) -> str:
    """Why the database does not serve the request, without internal details."""
    return str(error) if isinstance(error, ClocksDiffer | ReadOnlyDatabase) else "the database is unavailable"


def internal_error() -> Problem:
    """500, without internal details."""
    return Problem(500, "internal error; see the server's log")


def invalid(field: str, reason: str) -> Problem:
    """422 that names the field."""
    return Problem(422, f"{field}: {reason}", errors=[{"field": field, "reason": reason}])


def unprocessable(errors: Sequence[Mapping[str, Any]], status: int = 422) -> Problem:
    """422, or another status, for rows of a body: each error has `line` or `index`, `field` and `reason`."""
    return Problem(status, _summary(errors), errors=list(errors))


def _summary(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first error as text, and the number of further ones."""
    first = errors[0]
    place = next((f"{key} {first[key]}: " for key in ("line", "index") if key in first), "")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}{first['field']}: {first['reason']}{more}"


def install(app: FastAPI) -> None:
    """Answer every error in `app` with a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(StoreUnavailable, _on_unavailable)
    app.add_exception_handler(Misconfigured, _on_misconfigured)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_bug)


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _on_unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreUnavailable)
    log.warning("database unavailable", path=request.scope["path"], reason=str(error))
    return outage(error).response()


async def _on_misconfigured(request: Request, error: Exception) -> Response:
    """500: schema or privileges do not match the program, so a retry cannot succeed and 503 would be wrong."""
    log.error("request failed", path=request.scope["path"], reason=str(error))
    return internal_error().response()


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Problem(error.status_code, str(error.detail), error.headers).response()


async def _on_invalid(_: Request, error: Exception) -> Response:
    """400 for a body that is not JSON, 422 for invalid fields."""
    assert isinstance(error, RequestValidationError)
    errors = [{"field": _field(e["loc"]), "reason": reason_of(e)} for e in error.errors()]
    if any(e["type"] == "json_invalid" for e in error.errors()):
        return Problem(400, f"not JSON: {errors[0]['reason']}").response()
    return Problem(422, "; ".join(f"{e['field']}: {e['reason']}" for e in errors), errors=errors).response()


def _field(location: tuple[int | str, ...]) -> str:
    """`('query', 'from')` is the caller's `from`; the body as a whole is `body`."""
    return field_of(location[1:]) or str(location[0])


def field_of(location: Sequence[int | str]) -> str:
    """A place in a document as its author names it: `('meters', 0, 'id')` is `meters[0].id`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


_REASONS = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "Input should be an object"),
    "uuid_parsing": "Input should be a UUID",
}


def reason_of(error: Mapping[str, Any]) -> str:
    """What pydantic found, with what a pattern means instead of the pattern."""
    context = error.get("ctx") or {}
    if cause := context.get("error"):
        return str(cause)
    if reason := _REASONS.get(error["type"]):
        return reason
    return REQUIRED.get(context.get("pattern", ""), str(error["msg"]))


async def _on_bug(_: Request, __: Exception) -> Response:
    return internal_error().response()
