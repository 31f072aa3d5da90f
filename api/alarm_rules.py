"""The rules of alarms: what the keeper judges. A change takes effect at its next run."""

from http import HTTPStatus
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Path
from starlette.responses import JSONResponse, Response

from api.alarm_models import BODY_RESPONSES, Rule, RuleBody, RuleList
from api.database import connection
from api.patterns import RULE_PATTERN
from api.problems import Problem, invalid
from api.routing import NOTHING, needs
from api.services import Caller, WithServices
from bridge import audit
from bridge.alarms.measures import MEASURES

router = APIRouter(prefix="/v1/alarm-rules", tags=["alarms"])

_COLUMNS = "name, measure, direction, raise_at, clear_at, for_s, severity, enabled, kind, site, device"
_LIST = f"SELECT {_COLUMNS} FROM alarm_rule ORDER BY name"  # noqa: S608
_ONE = f"SELECT {_COLUMNS} FROM alarm_rule WHERE name = $1"  # noqa: S608
_DELETE = f"DELETE FROM alarm_rule WHERE name = $1 RETURNING {_COLUMNS}"  # noqa: S608
_PUT = f"""
INSERT INTO alarm_rule AS r ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (name) DO UPDATE SET measure = excluded.measure, direction = excluded.direction,
    raise_at = excluded.raise_at, clear_at = excluded.clear_at, for_s = excluded.for_s, severity = excluded.severity,
    enabled = excluded.enabled, kind = excluded.kind,
    site = excluded.site, device = excluded.device, changed_at = now()
RETURNING {_COLUMNS}
"""  # noqa: S608
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such rule"}}
_WRITTEN: dict[int | str, dict[str, Any]] = {
    200: {"description": "Replaced"},
    201: {"description": "Created", "model": Rule},
}

RuleName = Annotated[str, Path(alias="name", pattern=RULE_PATTERN, examples=["battery-hot"])]


@router.get("", operation_id="listAlarmRules", summary="List the rules of alarms", openapi_extra=needs("read", NOTHING))
async def list_rules(services: WithServices) -> RuleList:
    """All rules by name."""
    async with connection(services.pool) as c:
        rows = await c.fetch(_LIST)
    return RuleList(items=[_rule(row) for row in rows])


@router.get(
    "/{name}",
    operation_id="getAlarmRule",
    summary="Get a rule of alarms",
    openapi_extra=needs("read", NOTHING),
    responses=_UNKNOWN,
)
async def get_rule(services: WithServices, name: RuleName) -> Rule:
    """One rule."""
    async with connection(services.pool) as c:
        row = await c.fetchrow(_ONE, name)
    if row is None:
        raise _unknown(name)
    return _rule(row)


@router.put(
    "/{name}",
    operation_id="putAlarmRule",
    summary="Create or replace a rule of alarms",
    openapi_extra=needs("admin"),
    response_model=Rule,
    responses=BODY_RESPONSES | _WRITTEN,
)
async def put_rule(services: WithServices, caller: Caller, name: RuleName, body: RuleBody) -> Response:
    """Create or replace a rule. Alarms of a rule that is disabled, or that no longer applies to the device, are
    cleared."""
    _check(body)
    async with connection(services.pool) as c, c.transaction():
        before = await c.fetchrow(_ONE, name)
        row = await c.fetchrow(_PUT, name, *body.model_dump(by_alias=False).values())
        assert row is not None
        old = None if before is None else dict(before)
        await audit.record(c, f"key:{caller.id}", "alarm_rule.put", f"alarm_rule:{name}", before=old, after=dict(row))
    status = HTTPStatus.CREATED if before is None else HTTPStatus.OK
    return JSONResponse(_rule(row).model_dump(mode="json"), status)


@router.delete(
    "/{name}",
    operation_id="deleteAlarmRule",
    summary="Remove a rule of alarms",
    openapi_extra=needs("admin"),
    status_code=HTTPStatus.NO_CONTENT,
    responses=_UNKNOWN,
)
async def delete_rule(services: WithServices, caller: Caller, name: RuleName) -> None:
    """Remove a rule. Its open alarms are cleared and kept."""
    async with connection(services.pool) as c, c.transaction():
        row = await c.fetchrow(_DELETE, name)
        if row is None:
            raise _unknown(name)
        await audit.record(c, f"key:{caller.id}", "alarm_rule.delete", f"alarm_rule:{name}", before=dict(row))


def _check(body: RuleBody) -> None:
    """Raise 422 for bounds in the wrong order, and for a filter that no device of the measure passes."""
    if body.clear_at > body.raise_at and body.direction == "above":
        raise invalid("clearAt", "should not be above raiseAt")
    if body.clear_at < body.raise_at and body.direction == "below":
        raise invalid("clearAt", "should not be below raiseAt")
    kinds = [kind.name for kind in MEASURES[body.measure].kinds]
    if body.kind is not None and body.kind not in kinds:
        raise invalid("kind", f"{body.measure} is measured of {' and '.join(kinds) or 'no device'}")
    for field, value in (("site", body.site), ("device", body.device)):
        if value is not None and not kinds:
            raise invalid(field, f"{body.measure} concerns no device")


def _rule(row: asyncpg.Record) -> Rule:
    return Rule.model_validate(dict(row) | {"unit": MEASURES[row["measure"]].unit})


def _unknown(name: str) -> Problem:
    return Problem(404, f"there is no rule {name}")
