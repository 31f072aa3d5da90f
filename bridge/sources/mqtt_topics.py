"""Topics to which devices publish by mistake, and which are theirs beyond doubt. Pure.

The access list lets a device publish to them, because Mosquitto tells nobody what it refuses: MQTT 3.1.1 gets the same
PUBACK as for a reading that is queued.
"""

import re

from bridge.contract import KINDS

_MISTAKES = ("/fleet/{}/telemetry", "fleet/{}/telemetry/", "fleet/{}/Telemetry", "Fleet/{}/telemetry")
MISTAKEN_FILTERS = tuple(mistake.format(f"{kind.name}/+") for kind in KINDS for mistake in _MISTAKES)
"""Topic filters of them."""
_DEVICE = f"((?:{'|'.join(kind.name for kind in KINDS)})/[^/]+)"
_meant = re.compile("|".join(mistake.format(_DEVICE) for mistake in _MISTAKES)).fullmatch


def meant(topic: str) -> str | None:
    """The telemetry topic that is meant by a mistaken one; None for every other topic."""
    if topic.startswith("fleet/") and topic.endswith("/telemetry"):  # quick, because most are right
        return None
    found = _meant(topic)
    return None if found is None else f"fleet/{found[found.lastindex or 0]}/telemetry"
