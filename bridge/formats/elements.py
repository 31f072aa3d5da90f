"""Splits a JSON array that is not valid JSON as a whole into the bytes of its elements. Pure.

A device that writes `nan`, a decimal comma or half an array invalidates one element; the others are still valid.
The scanner recognizes only strings and brackets: whether an element is valid is determined when it is decoded.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bridge.formats.document import BLANK, without_marks

# A string to its end (or to the end of the payload if it is not terminated), opening brackets, a closing one, a comma.
# Possessive, so that a string that is not terminated is scanned only once.
_tokens = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]++|[\]},]', re.DOTALL).finditer


class Elements(NamedTuple):
    """The elements in their order, without surrounding white space."""

    texts: list[bytes]
    is_closed: bool
    """False when the payload ended before the array did."""


def begins_as_array(payload: bytes) -> bool:
    """Whether its first character opens an array."""
    return without_marks(payload)[:1] == b"["


def cut(payload: bytes, most: int) -> Elements:
    """Split a payload that begins as an array into its top-level elements, at most `most` + 1 of them.

    A comma before the closing bracket adds no element; between two commas there is an empty one. Bytes after the
    closing bracket are another element.
    """
    text = without_marks(payload)
    texts: list[bytes] = []
    start, is_closed = 1, False
    for end in _ends(text):
        is_closed = text[end : end + 1] == b"]"
        element = text[start:end].strip(BLANK)
        if element or not is_closed:
            texts.append(element)
        start = end + 1
        if len(texts) > most:
            return Elements(texts, is_closed=True)
    if rest := text[start:].strip(BLANK):
        texts.append(rest)
    return Elements(texts, is_closed)


def _ends(text: bytes) -> Iterator[int]:
    """The ends of the array's elements: the commas at its top level, then its closing bracket if there is one.

    A closing bracket also closes the brackets that are open inside it, and one without an opening bracket is ignored:
    a missing or superfluous bracket invalidates only its own element as far as possible.
    """
    stack = bytearray()
    opened = {ord("["): 0, ord("{"): 0}
    opener = {b"]": ord("["), b"}": ord("{")}
    for token in _tokens(text):
        sign = token[0]
        if sign[0] in opened:
            stack += sign
            for bracket in opened:
                opened[bracket] += sign.count(bracket)
        elif sign == b"," and len(stack) == 1:
            yield token.start()
        elif sign in opener and opened[opener[sign]]:
            while (closed := stack.pop()) != opener[sign]:
                opened[closed] -= 1
            opened[closed] -= 1
            if not stack:
                yield token.start()
                return
