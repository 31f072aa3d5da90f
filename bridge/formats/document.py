"""Parses untrusted JSON so that one invalid value does not invalidate the other elements. Pure."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic_core import from_json

_MAX_DOCUMENT_DEPTH = 500  # what the json module can serialize again
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_decimal_comma = re.compile(rb":\s*+-?\d++,\d").search
_MOST_SEARCHED_BYTES = 2_048
BLANK = b" \t\r\n\0"
"""White space, and the NUL that terminates a string in C and that some devices send."""


def without_marks(payload: bytes) -> bytes:
    """The payload without a leading byte order mark, and without surrounding NULs and white space."""
    return payload.removeprefix(_BYTE_ORDER_MARK).strip(BLANK)


def deeper_than(levels: int, value: Any) -> bool:
    """Whether lists and objects are nested more than `levels` deep; without recursion."""
    return all(_values_by_level(value, levels))


def more_values_than(most: int, value: Any, levels: int) -> bool:
    """Whether lists and objects contain more than `most` values on their first `levels`; stops counting there."""
    count = 0
    for on_level in _values_by_level(value, levels):
        count += on_level
        if count > most:
            return True
    return False


def _values_by_level(value: Any, levels: int) -> Iterator[int]:
    """The number of values on each level, from the first to the one below `levels`; 0 ends it."""
    inside = [value]
    for _ in range(levels + 1):
        inside = [inner for outer in inside for inner in _elements(outer)]
        yield len(inside)
        if not inside:
            return


def _elements(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def loads(payload: bytes) -> Any:
    """Parse JSON so that one invalid value does not invalidate the other elements.

    The fast parser refuses a whole document because of a number out of range, a lone surrogate or a byte that is not
    UTF-8; the slow parser accepts these, and only the element that contains them is rejected.
    Raises `ValueError` when the document is not JSON.
    """
    try:
        return from_json(payload)
    except ValueError as error:
        try:
            text = without_marks(payload).decode("utf-8", "surrogateescape")
            document = json.loads(text, parse_int=_parse_int)
        except (ValueError, RecursionError):
            if _decimal_comma(payload, 0, _MOST_SEARCHED_BYTES):
                raise ValueError(f"{error} (numbers have a decimal point, not a comma)") from None
            raise error from None
        if deeper_than(_MAX_DOCUMENT_DEPTH, document):
            raise error from None
        return document


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float(digits)


def dump(element: Any) -> bytes:
    """Serialize a parsed value as JSON."""
    return json.dumps(element).encode()
