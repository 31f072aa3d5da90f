"""Sources of deliveries. A source is a module with a `SOURCE`, listed in `SOURCES`."""

from typing import Any

from bridge.errors import Misconfigured
from bridge.sources import jetstream, kafka, mqtt
from bridge.sources.port import SourceKind

SOURCES: dict[str, SourceKind[Any]] = {
    "mqtt": mqtt.SOURCE,
    "jetstream": jetstream.SOURCE,
    "kafka": kafka.SOURCE,
}


def named(name: str) -> SourceKind[Any]:
    """The kind of source of this name. Raises `Misconfigured`."""
    if name not in SOURCES:
        raise Misconfigured(f"FLEET_SOURCE: there is no source {name}; it is one of {', '.join(SOURCES)}")
    return SOURCES[name]
