"""Chooses what goes wrong, and when: seeded, so that a failing seed replays."""

import random

from tests.acceptance.chaos import (
    api_faults,
    bridge_faults,
    keeper_faults,
    mqtt_faults,
    postgres_faults,
    stream_faults,
)
from tests.acceptance.chaos.fault import FAULTS, Fault

__all__ = ["FAULTS", "choose", "possible"]

COURSES = (bridge_faults, postgres_faults, mqtt_faults, api_faults, keeper_faults, stream_faults)
"""Imported for their faults, in the order of docs/reliability.md."""

_OFTEN_TWO = 0.4
_OF_BROKER = {"mqtt", "broker"}
_NOT_OF_STREAM = {"bridge-two-of-one-name", "bridge-crash-mid-acks"}
"""They look at what a bridge of a broker does."""


def possible(stream: bool) -> list[str]:
    """The faults that can happen to a platform with a broker, or with a stream."""
    if not stream:
        return [name for name, fault in FAULTS.items() if fault.place != "stream"]
    return [n for n, fault in FAULTS.items() if fault.place not in _OF_BROKER and n not in _NOT_OF_STREAM]


def choose(cycle: int, rng: random.Random, names: list[str]) -> list[Fault]:
    """One fault, each of them in turn, or two that strike at different places."""
    first = FAULTS[names[cycle % len(names)]]
    others = [
        other
        for other in map(FAULTS.__getitem__, names)
        if other.place != first.place and not other.alone and not first.alone
    ]
    return [first, rng.choice(others)] if others and rng.random() < _OFTEN_TWO else [first]
