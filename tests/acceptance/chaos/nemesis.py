"""Chooses what goes wrong, and when: seeded, so that a failing seed replays."""

import random

from tests.acceptance.chaos import api_faults, bridge_faults, keeper_faults, mqtt_faults, postgres_faults
from tests.acceptance.chaos.fault import FAULTS, Fault

__all__ = ["FAULTS", "choose"]

COURSES = (bridge_faults, postgres_faults, mqtt_faults, api_faults, keeper_faults)
"""Imported for their faults, in the order of docs/reliability.md."""

_OFTEN_TWO = 0.4


def choose(cycle: int, rng: random.Random, names: list[str]) -> list[Fault]:
    """One fault, each of them in turn, or two that strike at different places."""
    first = FAULTS[names[cycle % len(names)]]
    others = [
        other
        for other in map(FAULTS.__getitem__, names)
        if other.place != first.place and not other.alone and not first.alone
    ]
    return [first, rng.choice(others)] if others and rng.random() < _OFTEN_TWO else [first]
