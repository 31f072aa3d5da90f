"""Subjects of a stream and the topics that they stand for. Pure.

NATS makes a subject of an MQTT topic: `/` becomes `.`, and `.` becomes `//`; the stream of its MQTT devices has it
behind `$MQTT.msgs.`. A device that wants a receipt publishes to its telemetry topic with one more level, which it
chooses: MQTT 3.1.1 has no response topic, and JetStream uses the reply subject itself.
"""

from functools import lru_cache
from typing import NamedTuple

from bridge.contract import KINDS
from bridge.formats import FORMATS

MQTT_STREAM = "$MQTT_msgs"
"""The stream of the cluster's MQTT listener."""
_MQTT_PREFIX = "$MQTT.msgs."


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
    """The subjects of readings in the stream."""
    prefix = _MQTT_PREFIX if stream == MQTT_STREAM else ""
    telemetry = [kind.topic_filter for kind in KINDS]
    topics = [*telemetry, *(f"{topic}/+" for topic in telemetry), *(t for format_ in FORMATS for t in format_.topics)]
    signs = {"+": "*", "#": ">"}
    return [prefix + ".".join(signs.get(level, _escaped(level)) for level in topic.split("/")) for topic in topics]


@lru_cache(maxsize=20_000)  # a device publishes to one subject
def place_of(subject: str) -> Place:
    """The topic of a subject, and the subject of the receipt that it asks for."""
    levels = [level.replace("//", ".") for level in subject.removeprefix(_MQTT_PREFIX).split(".")]
    if len(levels) == 5 and levels[0] == "fleet" and levels[3] == "telemetry":
        receipt = [*levels[:3], "receipt", levels[4]]
        return Place("/".join(levels[:4]), ".".join(map(_escaped, receipt)))
    return Place("/".join(levels), None)


def _escaped(level: str) -> str:
    return level.replace(".", "//")
