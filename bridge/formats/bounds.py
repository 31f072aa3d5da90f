"""Limits of a message and of an HTTP body, checked before anything is built from it. Pure.

The cost of decoding depends on the number of values, which the bytes of a payload tell at once: each value but the
first follows a comma, or is in a list or object. A message within these limits takes some ten milliseconds. A body is
decoded apart from the others, in turns; its limit bounds the memory: a list of two bytes becomes an object of 56.
"""

BYTES_PER_READING = 262
"""A message of 1,000 readings may have 256 KiB, which is also the broker's limit of a packet (`max_packet_size`)."""
_BRACKETS_PER_READING = 8
_COMMAS_PER_READING = 64
_BRACKETS_PER_READING_OF_A_BODY = 128
SMALL = 4_096
"""A payload of so many bytes is within every limit."""


def excess(payload: bytes, most: int) -> str | None:
    """What a message of at most `most` readings has too many of, or None."""
    if len(payload) > BYTES_PER_READING * most:
        return f"more than {BYTES_PER_READING * most} bytes"
    if (detail := _too_many_brackets(payload, _BRACKETS_PER_READING * most)) is not None:
        return detail
    if payload.count(b",") > _COMMAS_PER_READING * most:
        return f"more than {_COMMAS_PER_READING * most} values"
    return None


def excess_of_body(body: bytes, most: int) -> str | None:
    """What an HTTP body of at most `most` readings has too many of, or None. Its bytes are limited elsewhere."""
    return _too_many_brackets(body, _BRACKETS_PER_READING_OF_A_BODY * most)


def _too_many_brackets(payload: bytes, limit: int) -> str | None:
    if payload.count(b"[") + payload.count(b"{") > limit:
        return f"more than {limit} lists and objects"
    return None
