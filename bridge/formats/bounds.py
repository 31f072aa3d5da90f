"""Limits of a message, checked before anything is built from it; bodies of HTTP have a budget. Pure.

The cost of decoding depends on the number of values, which the bytes of a payload tell at once: each value but the
first follows a comma, or is in a list or object. A payload within these limits takes some ten milliseconds.
"""

BYTES_PER_READING = 262
"""A message of 1,000 readings may have 256 KiB, which is also the broker's limit of a packet (`max_packet_size`)."""
_BRACKETS_PER_READING = 8
_COMMAS_PER_READING = 64
SMALL = 4_096
"""A payload of so many bytes is within every limit."""


def excess(payload: bytes, most: int) -> str | None:
    """What a message of at most `most` readings has too many of, or None."""
    if len(payload) > BYTES_PER_READING * most:
        return f"more than {BYTES_PER_READING * most} bytes"
    if payload.count(b"[") + payload.count(b"{") > _BRACKETS_PER_READING * most:
        return f"more than {_BRACKETS_PER_READING * most} lists and objects"
    if payload.count(b",") > _COMMAS_PER_READING * most:
        return f"more than {_COMMAS_PER_READING * most} values"
    return None
