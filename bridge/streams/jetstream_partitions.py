"""The parts of a stream that several bridges share, each with a durable consumer of its own. Pure.

A device is in one partition, so its readings keep their order. With one partition the stream is not divided.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bridge.settings.jetstream import NatsStreamSettings
from bridge.streams.jetstream_subjects import filters, filters_of, transform_of

_LEAST_WINDOW = 100
_MOST_BYTES, _LEAST_BYTES = 16 * 2**20, 2 * 2**20  # of one request: more than a message, which is 1 MiB unless set
_NUMBER = re.compile(r"\{\{partition\((\d+),")


class Share(NamedTuple):
    """What is read of one partition, and how."""

    consumer: str
    filters: list[str]
    window: int
    """Unacknowledged messages that may be underway."""
    most_bytes: int
    """Bytes of one request."""


def share_of(settings: NatsStreamSettings, partition: int) -> Share:
    """The consumer of a partition. That of the first one has the name that it has without partitions."""
    partitions, name, stream = settings.nats_partitions, settings.nats_consumer, settings.nats_stream
    return Share(
        name if partition == 0 else f"{name}-{partition}",
        filters(stream) if partitions == 1 else filters_of(stream, partition),
        settings.nats_window if partitions == 1 else max(settings.nats_window // partitions, _LEAST_WINDOW),
        max(_MOST_BYTES // partitions, _LEAST_BYTES),
    )


def transform(settings: NatsStreamSettings) -> dict[str, str] | None:
    """The transform that the stream needs."""
    partitions = settings.nats_partitions
    return None if partitions == 1 else transform_of(settings.nats_stream, partitions)


def partitions_of(config: Mapping[str, Any]) -> int:
    """The number of partitions in a stream's configuration."""
    found = _NUMBER.search((config.get("subject_transform") or {}).get("dest", ""))
    return int(found[1]) if found else 1
