"""The streams to which messages can be published. A target is a module with a `TARGET`, listed in `TARGETS`."""

from bridge.streams import jetstream_target, kafka_target
from bridge.streams.port import AnyStreamKind

TARGETS: dict[str, AnyStreamKind] = {
    "jetstream": jetstream_target.TARGET,
    "kafka": kafka_target.TARGET,
}
