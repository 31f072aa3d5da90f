"""Webhooks: the receivers of notifications of alarms. Only keys with the scope admin may see or change them."""

import base64
import re
import secrets
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Path

from api.alarm_models import BODY_RESPONSES, CreatedWebhook, Webhook, WebhookBody, WebhookList
from api.database import connection
from api.patterns import WEBHOOK_PATTERN
from api.problems import Problem, invalid
from api.routing import needs
from api.services import Caller, WithServices
from bridge import audit

router = APIRouter(prefix="/v1/webhooks", tags=["alarms"])

MOST = 100
"""Webhooks at most: each is sent every notification."""
_CREATE = """
INSERT INTO alarm_webhook (id, url, secret) SELECT $1, $2, $3 WHERE (SELECT count(*) FROM alarm_webhook) < $4
RETURNING id, url, created_at, secret
"""
_LIST = """
SELECT w.id, w.url, w.created_at, w.disabled_at,
       count(*) FILTER (WHERE d.id IS NOT NULL AND d.delivered_at IS NULL AND d.failed_at IS NULL) AS pending,
       count(d.failed_at) AS failed
FROM alarm_webhook w LEFT JOIN alarm_delivery d ON d.target = w.id AND d.delivered_at IS NULL
GROUP BY w.id ORDER BY w.created_at, w.id
"""
_DELETE = "DELETE FROM alarm_webhook WHERE id = $1 RETURNING url"
_FORGET = "DELETE FROM alarm_delivery WHERE target = $1 AND delivered_at IS NULL"

_LONGEST_HOST = 253
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
WebhookId = Annotated[str, Path(alias="id", pattern=WEBHOOK_PATTERN)]
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such webhook"}}


@router.get("", operation_id="listWebhooks", summary="List webhooks", openapi_extra=needs("admin"))
async def list_webhooks(services: WithServices) -> WebhookList:
    """All webhooks, without their secrets."""
    async with connection(services.pool) as c:
        rows = await c.fetch(_LIST)
    return WebhookList(items=[Webhook.model_validate(dict(row)) for row in rows])


@router.post(
    "",
    operation_id="createWebhook",
    summary="Create a webhook",
    openapi_extra=needs("admin"),
    status_code=HTTPStatus.CREATED,
    responses=BODY_RESPONSES | {409: {"description": f"There are {MOST} webhooks already"}},
)
async def create_webhook(services: WithServices, caller: Caller, body: WebhookBody) -> CreatedWebhook:
    """Create a webhook; the answer has its secret, which cannot be shown again. Notifications of alarms that are raised
    or cleared from now on are sent to its URL."""
    _check_url(body.url)
    id_, secret = f"wh_{secrets.token_hex(8)}", "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    async with connection(services.pool) as c, c.transaction():
        row = await c.fetchrow(_CREATE, id_, body.url, secret, MOST)
        if row is None:
            raise Problem(409, f"there are {MOST} webhooks, the most that there may be")
        await audit.record(c, f"key:{caller.id}", "webhook.create", f"webhook:{id_}", url=body.url)
    return CreatedWebhook.model_validate(dict(row))


@router.delete(
    "/{id}",
    operation_id="deleteWebhook",
    summary="Remove a webhook",
    openapi_extra=needs("admin"),
    status_code=HTTPStatus.NO_CONTENT,
    responses=_UNKNOWN,
)
async def delete_webhook(services: WithServices, caller: Caller, id_: WebhookId) -> None:
    """Remove a webhook. Its undelivered notifications are dropped."""
    async with connection(services.pool) as c, c.transaction():
        url = await c.fetchval(_DELETE, id_)
        if url is None:
            raise Problem(404, f"there is no webhook {id_}")
        await c.execute(_FORGET, id_)
        await audit.record(c, f"key:{caller.id}", "webhook.delete", f"webhook:{id_}", url=url)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise invalid("url", "should be http[s]://host[:port][/path], in ASCII and without a fragment")
    if "@" in parts.netloc:
        raise invalid("url", "should have no user and password, which lists would show: verify the signature instead")


def _is_host(host: str) -> bool:
    """Whether a resolver can look it up (RFC 1035, with underscores), or it is an address of IPv6."""
    if ":" in host:
        return True  # urlsplit has parsed it
    return len(host) <= _LONGEST_HOST and all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))
