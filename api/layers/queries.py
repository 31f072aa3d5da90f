"""Refuses undeclared query parameters: if a misspelt one were ignored, the response would be to another query."""

from collections import Counter
from collections.abc import Awaitable, Mapping
from difflib import get_close_matches
from itertools import islice
from operator import itemgetter
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import unprocessable
from api.routing import FOUND, Found

_SYNONYMS = {
    "begin": "from", "start": "from", "since": "from", "end": "to", "until": "to", "timezone": "tz", "zone": "tz",
    "order": "sort", "page": "cursor", "after": "cursor", "size": "limit", "count": "limit",
}  # fmt: skip
"""Names that other APIs use for these parameters."""
_MOST_ERRORS = 10


class Queries:
    """Raises 422 that names each unknown parameter, with a similar known one if there is one, and each repeated one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found: Found = scope[FOUND]
        if scope["query_string"] and found.endpoint is not None:
            refuse_unknown(scope["query_string"].decode("latin-1"), found.endpoint.query)
        return self._app(scope, receive, send)


def refuse_unknown(query: str, declared: Mapping[str, bool]) -> None:
    """Raise 422 unless each parameter of `query` is declared, and occurs once unless it may be repeated."""
    given = Counter(name for name, _ in parse_qsl(query, keep_blank_values=True))
    faults = ((name, _fault(name, times, declared)) for name, times in given.items())
    errors = [{"field": name, "reason": reason} for name, reason in islice(filter(itemgetter(1), faults), _MOST_ERRORS)]
    if errors:
        raise unprocessable(errors)


def _fault(name: str, times: int, declared: Mapping[str, bool]) -> str | None:
    if name not in declared:
        return _unknown(name, list(declared))
    return "occurs more than once" if times > 1 and not declared[name] else None


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return "unknown parameter; this path has none"
    meant = nearest(name, known)
    question = "" if meant is None else f"; did you mean {meant}?"
    return f"unknown parameter{question} (known: {', '.join(known)})"


def nearest(name: str, known: list[str]) -> str | None:
    """The known parameter with a similar name, or the one that other APIs call `name`; None without one."""
    meant = _SYNONYMS.get(name.lower())
    if meant in known:
        return meant
    lower = {each.lower(): each for each in known}
    return next((lower[each] for each in get_close_matches(name.lower(), lower, n=1)), None)
