"""What an attacker sends: readings that are expensive to receive, to decode or to keep."""

import gzip
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tests.acceptance.attacks.attack import ATTACKER

_numbers = itertools.count()
LARGEST_MESSAGE = 250_000
"""Somewhat below the broker's limit of a packet."""
MOST_IN_A_MESSAGE, MOST_IN_A_BODY = 1_000, 10_000
"""Elements of an array that are decoded one by one; a longer array is refused as a whole, which costs little."""


def reading(**others: object) -> bytes:
    """A valid reading of the attacker's vehicle, of another moment of the last days each time."""
    at = datetime.now(UTC) - timedelta(milliseconds=next(_numbers) * 10)
    fields = {"vehicleId": ATTACKER, "timestamp": at.isoformat(timespec="milliseconds"), "soc": 50.0}
    return json.dumps(fields | others).encode()


def array(elements: Iterator[bytes], size_bytes: int) -> bytes:
    """An array of at most this size, of as many elements as a message or body of this size may have."""
    most = MOST_IN_A_BODY if size_bytes > LARGEST_MESSAGE else MOST_IN_A_MESSAGE
    taken, size = [], 2
    for element in itertools.islice(elements, most):
        size += len(element) + 1
        if size > size_bytes:
            break
        taken.append(element)
    return b"[" + b",".join(taken) + b"]"


def readings(size_bytes: int) -> bytes:
    """An array of valid readings."""
    return array((reading() for _ in itertools.count()), size_bytes)


def numbers(size_bytes: int) -> bytes:
    """An array of different numbers, each of them a reject."""
    return array((b"%d" % next(_numbers) for _ in itertools.count()), size_bytes)


def nested(size_bytes: int) -> bytes:
    """A reading with a field of many small lists and objects."""
    inner = b'[{"a":[[[[]]]]}]'
    return _with(b"[" + b",".join([inner] * (size_bytes // (len(inner) + 1))) + b"]")


def noted(size_bytes: int) -> bytes:
    """A reading with one long unknown field, which is stored."""
    return reading(note="n" * (size_bytes - 200))


def deep(size_bytes: int) -> bytes:
    """A reading with fields that are each as deep as a document may be."""
    inner = b"[" * 400 + b"]" * 400
    return _with(b"[" + b",".join([inner] * (size_bytes // (len(inner) + 1))) + b"]")


def wide(size_bytes: int) -> bytes:
    """A reading with very many unknown fields."""
    fields = b",".join(b'"f%d":%d' % (n, n) for n in range(size_bytes // 16))
    return reading()[:-1] + b"," + fields + b"}"


def digits(size_bytes: int) -> bytes:
    """An array of numbers with very many digits."""
    return array(itertools.repeat(b"9" * 5_000), size_bytes)


def damaged(size_bytes: int) -> bytes:
    """An array of readings in which each second one is not JSON."""
    return array(
        itertools.chain.from_iterable((reading(), reading()[:-9] + b"}") for _ in itertools.count()), size_bytes
    )


def open_strings(size_bytes: int) -> bytes:
    """What may be the begin of a string, a list or an object at every byte."""
    return b"[" + b'{"[' * (size_bytes // 3)


def conflicts(size_bytes: int) -> bytes:
    """Readings of one moment with different values: each but the first is a reject."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    first = next(_numbers) * MOST_IN_A_BODY  # so that no reject of another message is the same
    one = (
        f'{{"vehicleId":"{ATTACKER}","timestamp":"{at}","soc":{n % 100}.{n}}}'.encode() for n in itertools.count(first)
    )
    return array(one, size_bytes)


def of_others(size_bytes: int) -> bytes:
    """Readings of vehicles that are not the attacker's: each is a reject."""
    one = (reading().replace(b'"ATTACKER"', b'"OTHER%d"' % n) for n in itertools.count())
    return array(one, size_bytes)


def garbage(size_bytes: int) -> bytes:
    """What is not JSON, and different each time, so that it is kept each time."""
    return b"%d" % next(_numbers) + b"#" * size_bytes


def bomb(size_bytes: int) -> bytes:
    """A reading in so many bytes of white space, as gzip."""
    return gzip.compress(b"[" + b" " * size_bytes + reading() + b"]", 9)


def members(count: int, size_bytes: int) -> bytes:
    """Gzip of many members, each of which is white space."""
    return gzip.compress(b"[", 9) + gzip.compress(b" " * (size_bytes // count), 9) * count


def _with(value: bytes) -> bytes:
    return reading()[:-1] + b',"x":' + value + b"}"
