"""Authentication and authorization: a request needs a key with the scope of its route."""

import ipaddress
import math
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import ApiKey, bearer_token
from api.body import header
from api.keyring import Keyring
from api.problems import Problem
from api.protocol import HAS_KEY
from api.rate import RateLimit
from api.routing import FOUND, Found


class Authentication:
    """Passes requests with a key that has the route's scope, with any key where the route declares that, and all
    requests to routes that are declared public.

    Unknown paths and methods require a key, too, with any scope, so that clients without a key cannot probe for paths.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, rate: RateLimit, unknown: RateLimit) -> None:
        self._app = app
        self._keyring = keyring
        self._rate = rate
        self._unknown = unknown
        """Of addresses, for keys that are not known to be valid."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found: Found = scope[FOUND]
        access = found.endpoint.access if found.endpoint is not None else None
        if access != "public":
            key = await self._key(scope)
            if access is not None and access != "any key" and not key.holds(access):
                challenge = f'Bearer error="insufficient_scope", scope="{access}"'
                raise Problem(403, f"the API key lacks the scope {access}", {"WWW-Authenticate": challenge})
            state = scope.setdefault("state", {})
            state["key"] = key
            if HAS_KEY in state:
                state[HAS_KEY]()
        await self._app(scope, receive, send)

    async def _key(self, scope: Scope) -> ApiKey:
        """The request's key. Raises 401 or 429."""
        token = bearer_token(header(scope, b"authorization"))
        if token is None:
            raise Problem(401, "an API key is required: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})
        key, refusal = await self._verified(token, address_of(scope))
        if key is None:
            raise Problem(401, refusal, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        wait_s = self._rate.wait_s(key.id, time.monotonic())
        if wait_s > 0:
            raise _too_many("requests with this key", wait_s)
        return key

    async def _verified(self, token: str, address: str) -> tuple[ApiKey | None, str]:
        """As `Keyring.verify`. A client that tries keys cannot make the database look up each of them."""
        if not self._keyring.may_look_up_in_vain(token):
            return await self._keyring.verify(token)
        wait_s = self._unknown.wait_s(address, time.monotonic())
        if wait_s > 0:
            raise _too_many("unknown keys from this address", wait_s)
        found = await self._keyring.verify(token)
        if found[0] is not None:
            self._unknown.give_back(address)
        return found


def address_of(scope: Scope) -> str:
    """The client's IP address, of IPv6 the network of 64 bits, which is what a client has; empty without one."""
    client = scope.get("client")
    if not client:
        return ""
    address: str = client[0]
    return ":".join(ipaddress.IPv6Address(address.split("%")[0]).exploded.split(":")[:4]) if ":" in address else address


def _too_many(what: str, wait_s: float) -> Problem:
    return Problem(429, f"too many {what}", {"Retry-After": str(math.ceil(wait_s))})
