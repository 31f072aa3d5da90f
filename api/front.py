"""What every request passes: errors become problems, a key is asked for, headers that browsers should see are set.

Plain ASGI, around everything: no route can be reached past it.
"""

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping

import structlog
from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import INGEST_PATH, PUBLIC_PATHS, ApiKey, bearer_token, required_scope
from api.body import BodyBudget, Disconnected, announced_bytes, decompress, header, read_body
from api.ingest import IngestDoor
from api.keyring import Keyring
from api.problems import Problem, internal_error, unavailable
from api.rate import RateLimit
from api.settings import ApiSettings
from bridge.errors import StoreUnavailable

log = structlog.get_logger(__name__)

MAX_FORM_BYTES = 64 * 1024
"""Largest body of a request whose route has no limit of its own."""

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
_NOTHING = [(b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]
# The documentation page takes its script and style from its usual place and starts it with one inline script.
_DOCS = [
    (
        b"content-security-policy",
        b"default-src 'none'; connect-src 'self'; img-src 'self' data: https://fastapi.tiangolo.com; "
        b"style-src 'unsafe-inline' https://cdn.jsdelivr.net; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
        b"frame-ancestors 'none'",
    )
]
_HSTS = [(b"strict-transport-security", b"max-age=31536000")]
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Front:
    """The ASGI application that the server runs."""

    def __init__(
        self,
        settings: ApiSettings,
        app: ASGIApp,
        door: IngestDoor,
        keyring: Keyring,
        registry: CollectorRegistry,
        budget: BodyBudget,
        body_limits: Mapping[tuple[str, str], int],
    ) -> None:
        self._app = app
        self._door = door
        self._keyring = keyring
        self._settings = settings
        self._budget = budget
        self._body_limits = body_limits
        self._rate = RateLimit(settings.rate_limit_per_s, settings.rate_limit_burst)
        answers = Counter("fleet_http_answers", "Answers, by status.", ["status"], registry=registry)
        # `labels` looks its child up under a lock, which is dear for every request.
        self._answers = functools.cache(answers.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, _Answer(scope, send, self._answers))
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        """Let the request through, or answer with the problem that it ran into."""
        try:
            async with asyncio.timeout(self._settings.http_request_timeout_s):
                await self._let_in(scope, receive, answer)
        except Disconnected:
            return
        except Problem as problem:
            await answer.problem(problem)
        except StoreUnavailable as error:
            log.warning("store unavailable", path=scope["path"], error=str(error))
            await answer.problem(unavailable("the store is unavailable"))
        except TimeoutError:
            log.warning("request timed out", path=scope["path"])
            await answer.problem(unavailable("the answer took too long"))
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            await answer.problem(internal_error())

    async def _let_in(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        path, method = scope["path"], scope["method"]
        if path not in PUBLIC_PATHS and not _is_preflight(scope):
            key = await self._admit(scope)
            if path == INGEST_PATH:
                if method != "POST":
                    raise Problem(405, "readings are posted", {"Allow": "POST"})
                await self._door(scope, receive, answer, key)
                return
            scope["state"]["key"] = key
        if method in _BODILESS:
            await self._app(scope, receive, answer)
            return
        limit = self._body_limits.get((method, path), MAX_FORM_BYTES)
        with self._budget.reserve(announced_bytes(scope, limit)):
            await self._app(scope, await self._with_body(scope, receive, limit), answer)

    async def _admit(self, scope: Scope) -> ApiKey:
        """The request's key. Raises 401, 403 or 429."""
        token = bearer_token(header(scope, b"authorization"))
        if token is None:
            raise Problem(401, "an API key is required: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})
        key, refusal = await self._keyring.verify(token)
        if key is None:
            raise Problem(401, refusal, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        wait_s = self._rate.wait_s(key.id, time.monotonic())
        if wait_s > 0:
            raise Problem(429, "too many requests with this key", {"Retry-After": str(math.ceil(wait_s))})
        needed = required_scope(scope["method"], scope["path"])
        if not key.holds(needed):
            challenge = f'Bearer error="insufficient_scope", scope="{needed}"'
            raise Problem(403, f"the API key lacks the scope {needed}", {"WWW-Authenticate": challenge})
        return key

    async def _with_body(self, scope: Scope, receive: Receive, limit: int) -> Receive:
        """A `receive` whose body has arrived and is decompressed, both within `limit` bytes."""
        body = await read_body(receive, limit, self._settings.http_body_timeout_s)
        body = decompress(body, header(scope, b"content-encoding").strip().lower(), limit)
        messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            with contextlib.suppress(StopIteration):
                return next(messages)
            return await receive()

        return replay


def _is_preflight(scope: Scope) -> bool:
    """Whether a browser asks for CORS permission; it never sends the key with that question."""
    return bool(
        scope["method"] == "OPTIONS" and header(scope, b"origin") and header(scope, b"access-control-request-method")
    )


class _Answer:
    """`send` with the headers that every answer has, and the count of answers."""

    def __init__(self, scope: Scope, send: Send, answers: Callable[[int], Counter]) -> None:
        self._send = send
        self._answers = answers
        self._headers = _HEADERS + (_DOCS if scope["path"] == "/docs" else _NOTHING)
        if scope["scheme"] == "https":
            self._headers = self._headers + _HSTS
        self._started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._answers(message["status"]).inc()
            message["headers"] = [*message["headers"], *self._headers]
        await self._send(message)

    async def problem(self, problem: Problem) -> None:
        """Answer with a problem, unless another answer has begun: the server then cuts the connection."""
        if self._started:
            return
        response = problem.response()
        await self({"type": "http.response.start", "status": problem.status, "headers": response.raw_headers})
        await self({"type": "http.response.body", "body": response.body})
