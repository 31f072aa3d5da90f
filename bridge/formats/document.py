"""JSON from strangers: parsed so that one hostile value does not take its neighbours with it. Pure."""

import json
from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json

_MAX_DOCUMENT_DEPTH = 500  # what json can still write down again
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANK = b" \t\r\n\0"
"""White space, and the NUL that ends a string in C and was sent with it."""


def without_marks(payload: bytes) -> bytes:
    """The payload without a byte order mark before it, and without NULs and white space around it."""
    return payload.removeprefix(_BYTE_ORDER_MARK).strip(BLANK)


def deeper_than(levels: int, value: Any) -> bool:
    """Whether lists and objects stand in each other more than so many levels deep; without recursion."""
    inside = [value]
    for _ in range(levels + 1):
        inside = [inner for outer in inside for inner in _elements(outer)]
        if not inside:
            return False
    return True


def _elements(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def loads(payload: bytes) -> Any:
    """Parse JSON so that one hostile value does not take its neighbours with it.

    The fast parser refuses a whole document for a number out of range, a lone surrogate or a byte that is not
    UTF-8; the slow one lets them through, and the element that holds them is rejected alone.
    Raises `ValueError` when the document is not JSON.
    """
    try:
        return from_json(payload)
    except ValueError as error:
        try:
            text = without_marks(payload).decode("utf-8", "surrogateescape")
            document = json.loads(text, parse_int=_parse_int)
        except (ValueError, RecursionError):
            raise error from None
        if deeper_than(_MAX_DOCUMENT_DEPTH, document):
            raise error from None
        return document


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float(digits)


def dump(element: Any) -> bytes:
    """A parsed value as JSON again."""
    return json.dumps(element).encode()
