"""Management of API keys by administrators, and what a key may know of itself.

The database stores no key, so an answer has the complete key only when it was created.
"""

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from api import keys
from api.auth import ID_PATTERN
from api.database import Connection, connection
from api.key_models import CreatedKey, Key, KeyPage, NewKey, OwnKey, Rotation
from api.paging import Cursor, Limit, decode_time_and_name, encode_cursor, next_link
from api.problems import Problem, invalid
from api.routing import ALL, needs
from api.services import Caller, WithServices

router = APIRouter(prefix="/v1/keys", tags=["keys"])

KeyId = Annotated[str, Path(alias="id", pattern=ID_PATTERN, examples=["k3v9x0a1b2c3"])]
_BODY: dict[int | str, dict[str, Any]] = {
    400: {"description": "Not JSON"},
    408: {"description": "The body did not arrive in time"},
    413: {"description": "The body is too large"},
    415: {"description": "Unsupported Content-Encoding"},
}
_NO_KEY: dict[int | str, dict[str, Any]] = {404: {"description": "No key has this id"}}
_NOT_VALID: dict[int | str, dict[str, Any]] = {404: {"description": "No key that is not revoked has this id"}}


@router.get("/me", operation_id="getOwnKey", summary="Get the caller's key", openapi_extra=needs("any key", ALL))
async def own_key(caller: Caller) -> OwnKey:
    """Name, scopes and limits of the key that the request was sent with."""
    return OwnKey(
        id=caller.id,
        name=caller.name,
        scopes=[scope for scope in keys.SCOPES if scope in caller.scopes],
        devices=_several(caller.sight.devices),
        sites=_several(caller.sight.sites),
        expires_at=caller.expires_at,
    )


@router.get("", operation_id="listKeys", summary="List API keys", openapi_extra=needs("admin"), response_model=KeyPage)
async def list_keys(request: Request, services: WithServices, cursor: Cursor = None, limit: Limit = 100) -> Response:
    """All keys, also expired and revoked ones, in the order of their creation."""
    after = None if cursor is None else decode_time_and_name(cursor)
    async with connection(services.pool) as c:
        rows = await keys.page(c, after, limit + 1)
    following = encode_cursor(rows[limit - 1]["created_at"], rows[limit - 1]["id"]) if len(rows) > limit else None
    found = KeyPage(items=[_key(row) for row in rows[:limit]], next_cursor=following)
    return JSONResponse(found.model_dump(mode="json"), headers=next_link(request.query_params, following))


@router.post(
    "",
    operation_id="createKey",
    summary="Create an API key",
    openapi_extra=needs("admin"),
    status_code=HTTPStatus.CREATED,
    responses=_BODY,
)
async def create_key(services: WithServices, caller: Caller, new: NewKey) -> CreatedKey:
    """Create a key. The answer has the complete key, which cannot be shown again."""
    try:
        grant = new.grant()
    except ValueError as error:
        raise invalid("scopes", str(error)) from None
    async with connection(services.pool) as c, c.transaction():
        return await _created(c, await keys.create(c, new.name, grant, f"key:{caller.id}"))


@router.get("/{id}", operation_id="getKey", summary="Get an API key", openapi_extra=needs("admin"), responses=_NO_KEY)
async def get_key(services: WithServices, id_: KeyId) -> Key:
    """A key without its secret."""
    async with connection(services.pool) as c:
        row = await keys.show(c, id_)
    if row is None:
        raise Problem(404, f"no key has the id {id_}")
    return _key(row)


@router.post(
    "/{id}/rotate",
    operation_id="rotateKey",
    summary="Rotate an API key",
    openapi_extra=needs("admin"),
    status_code=HTTPStatus.CREATED,
    responses=_BODY | _NOT_VALID,
)
async def rotate_key(services: WithServices, caller: Caller, id_: KeyId, rotation: Rotation) -> CreatedKey:
    """Create a successor with the same name, scopes and limits. The old key expires after the overlap."""
    overlap = timedelta(seconds=rotation.overlap_s)
    lifetime = None if rotation.lifetime_s is None else timedelta(seconds=rotation.lifetime_s)
    async with connection(services.pool) as c, c.transaction():
        successor = await keys.rotate(c, id_, overlap, f"key:{caller.id}", lifetime)
        if successor is None:
            raise _not_valid(id_)
        return await _created(c, successor)


@router.delete(
    "/{id}",
    operation_id="revokeKey",
    summary="Revoke an API key",
    openapi_extra=needs("admin"),
    status_code=HTTPStatus.NO_CONTENT,
    responses=_NOT_VALID,
)
async def revoke_key(services: WithServices, caller: Caller, id_: KeyId) -> None:
    """Revoke a key with immediate effect. Its row is kept."""
    async with connection(services.pool) as c, c.transaction():
        if not await keys.revoke(c, id_, f"key:{caller.id}"):
            raise _not_valid(id_)


async def _created(c: Connection, created: tuple[str, str]) -> CreatedKey:
    id_, token = created
    row = await keys.show(c, id_)
    assert row is not None
    return CreatedKey(**_key(row).model_dump(by_alias=False), key=token)


def _key(row: asyncpg.Record) -> Key:
    return Key.model_validate(dict(row))


def _several(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else list(names)


def _not_valid(id_: str) -> Problem:
    return Problem(404, f"no valid key has the id {id_}")
