"""The elements of a JSON array that is no JSON as a whole, each as its own bytes. Pure.

A sensor that writes `nan`, a decimal comma or half an array spoils one element; the others are as good as they were.
The scanner knows strings and brackets and nothing else of JSON: what an element is worth, its own decoding says.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bridge.formats.document import BLANK, without_marks

# A string to its end (or to the end of the payload when it has none), opening brackets, a closing one, or a comma.
# Possessive: a string without an end is read once.
_tokens = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]++|[\]},]', re.DOTALL).finditer


class Elements(NamedTuple):
    """The elements in their order, without the blanks around them."""

    texts: list[bytes]
    is_closed: bool
    """False when the payload ended before the array did."""


def begins_as_array(payload: bytes) -> bool:
    """Whether the first thing in it opens an array."""
    return without_marks(payload)[:1] == b"["


def cut(payload: bytes, most: int) -> Elements:
    """The top-level elements of a payload that begins as an array; it stops after `most` + 1 of them.

    A comma before the closing bracket adds no element; between two commas there is an empty one. What follows the
    closing bracket is one element more.
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
    """Where the array's elements end: the commas at its top level, then its closing bracket if there is one.

    A closing bracket closes what stands open inside it too, and one that closes nothing is passed over, so a bracket
    that is missing or too many harms its own element as far as that can be told.
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
