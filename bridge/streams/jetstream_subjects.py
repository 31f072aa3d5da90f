"""Subjects of a stream and the topics that they stand for. Pure.

NATS makes a subject of an MQTT topic: `/` becomes `.`, and `.` becomes `//`; the stream of its MQTT devices has it
behind `$MQTT.msgs.`. A level that no subject can have stands as its digest, and the topic is in the header `TOPIC`.
A stream that divides the devices has `partition.NUMBER.` before the subject, from a transform. A
device that wants a receipt publishes to its telemetry topic with one more level, which it
chooses: MQTT 3.1.1 has no response topic, and JetStream uses the reply subject itself.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

from bridge.contract import KINDS
from bridge.formats import FORMATS

MQTT_STREAM = "$MQTT_msgs"
"""The stream of the cluster's MQTT listener."""
_MQTT_PREFIX = "$MQTT.msgs."
_PARTITION = "partition"
_DEVICES = "fleet.*.*.>"
TOPIC = "Fleet-Topic"
"""The header with the topic where the subject does not tell it, percent-encoded."""
_plain = re.compile(
    r"[!-)+-=?-~]{1,128}"
).fullmatch  # neither white space nor wildcards; NATS limits a subject to 4 KiB
_PRINTABLE = "".join(map(chr, range(32, 127))).replace("%", "")


class Place(NamedTuple):
    """What a message's subject says."""

    topic: str
    """The MQTT topic, by which the message is decoded."""
    receipt: str | None
    """The subject to which a receipt is published."""


def stream_subjects(stream: str) -> list[str]:
    """The subjects that the stream stores."""
    return [f"{_MQTT_PREFIX}>"] if stream == MQTT_STREAM else filters(stream)


def filters(stream: str) -> list[str]:
    """The subjects of readings in a stream that does not divide them."""
    topics = [*_telemetry(), *(topic for format_ in FORMATS for topic in format_.topics)]
    return [_prefix(stream) + _subject(topic) for topic in topics]


def filters_of(stream: str, partition: int) -> list[str]:
    """The subjects of one partition. The first one has those that the transform leaves alone, or that are older."""
    own = [f"{_prefix(stream)}{_PARTITION}.{partition}.{_subject(topic)}" for topic in _telemetry()]
    return [*filters(stream), *own] if partition == 0 else own


def transform_of(stream: str, partitions: int) -> dict[str, str]:
    """The stream's transform that divides the devices, by kind and id."""
    prefix, number = _prefix(stream), f"{{{{partition({partitions},1,2)}}}}"
    divided = f"{prefix}{_PARTITION}.{number}.fleet.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.>"
    return {"src": f"{prefix}{_DEVICES}", "dest": divided}


def _telemetry() -> list[str]:
    topics = [kind.topic_filter for kind in KINDS]
    return [*topics, *(f"{topic}/+" for topic in topics)]


def _prefix(stream: str) -> str:
    return _MQTT_PREFIX if stream == MQTT_STREAM else ""


def _subject(topic: str) -> str:
    signs = {"+": "*", "#": ">"}
    return ".".join(signs.get(level, _escaped(level)) for level in topic.split("/"))


@lru_cache(maxsize=20_000)  # a device publishes to one subject
def place_of(subject: str) -> Place:
    """The topic of a subject, and the subject of the receipt that it asks for."""
    levels = [level.replace("//", ".") for level in subject.removeprefix(_MQTT_PREFIX).split(".")]
    if levels[0] == _PARTITION:
        del levels[:2]
    if len(levels) == 5 and levels[0] == "fleet" and levels[3] == "telemetry":
        receipt = [*levels[:3], "receipt", levels[4]]
        return Place("/".join(levels[:4]), ".".join(map(_escaped, receipt)))
    return Place("/".join(levels), None)


def _escaped(level: str) -> str:
    return level.replace(".", "//")


@lru_cache(maxsize=20_000)
def subject_of(topic: str) -> str:
    """The subject to which a message of this topic is published."""
    return ".".join(_escaped(level) if _plain(level) else _digest(level) for level in topic.split("/"))


def _digest(level: str) -> str:
    return "~" + hashlib.blake2b(level.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def topic_named(subject: str, header: str) -> str:
    """The topic of a message with a header `TOPIC`, which only counts if the subject is that of its topic."""
    topic = unquoted(header)
    own = subject.split(".", 2)[2] if subject.startswith(f"{_PARTITION}.") else subject
    return topic if subject_of(topic) == own else place_of(subject).topic


def quoted(text: str) -> str:
    """The text as a header may have it: one line of printable ASCII."""
    return quote(text, safe=_PRINTABLE)


def unquoted(text: str) -> str:
    """The text of a header that was `quoted`."""
    return unquote(text) if "%" in text else text
