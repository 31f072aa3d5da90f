"""Authorization of API keys. Pure: no clock, no database.

A key is `fleet_<id>_<secret>`: the id finds the row, the secret (256 bits) is compared by its hash in constant time.
The scope that a request needs is declared next to its route (`routing.needs`), `api.sight` has what the key sees.
"""

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

from api.sight import Sight

Scope = Literal["ingest", "read", "assign", "admin"]
ID_PATTERN = "^[a-z0-9]{12}$"
"""Of a key's id."""

_token = re.compile(r"fleet_([a-z0-9]{12})_([A-Za-z0-9_-]{43})").fullmatch
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored in the database; without its secret."""

    id: str
    name: str
    hash: bytes
    scopes: frozenset[Scope]
    sight: Sight
    expires_at: datetime | None
    revoked_at: datetime | None

    def holds(self, scope: Scope) -> bool:
        """Whether the key has the scope; `admin` implies all."""
        return scope in self.scopes or "admin" in self.scopes

    def refusal(self, now: datetime) -> str | None:
        """Why the key is no longer valid, or None."""
        if self.revoked_at is not None:
            return "the API key was revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "the API key has expired"
        return None


def new_token() -> tuple[str, str]:
    """The id and the complete text of a new key."""
    id_ = "".join(secrets.choice(_ID_LETTERS) for _ in range(12))
    return id_, f"fleet_{id_}_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> bytes:
    """The digest that is stored for a key."""
    return sha256(token.encode()).digest()


def id_of(token: str) -> str | None:
    """The id in a key, or None when the text is not a key of this API."""
    match = _token(token)
    return match[1] if match else None


def is_key(token: str, key: ApiKey) -> bool:
    """Whether `token` is this key, compared in constant time."""
    return hmac.compare_digest(token_hash(token), key.hash)


def bearer_token(authorization: str) -> str | None:
    """The token of an `Authorization: Bearer` header (RFC 6750), or None."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
