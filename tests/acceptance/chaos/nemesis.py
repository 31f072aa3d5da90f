"""Chooses what goes wrong, and when: seeded, so that a failing seed replays."""

import random

from tests.acceptance.chaos import (
    api_faults,
    bridge_faults,
    failover_faults,
    keeper_faults,
    mqtt_faults,
    nats_faults,
    postgres_faults,
    relay_faults,
    stream_faults,
)
from tests.acceptance.chaos.fault import FAULTS, Fault
from tests.acceptance.chaos.stack import Stack

__all__ = ["FAULTS", "choose", "possible"]

COURSES = (
    bridge_faults,
    postgres_faults,
    failover_faults,
    mqtt_faults,
    api_faults,
    keeper_faults,
    stream_faults,
    nats_faults,
    relay_faults,
)
"""Imported for their faults, in the order of docs/reliability.md."""

_OFTEN_TWO = 0.4


def possible(platform: type[Stack]) -> list[str]:
    """The faults that can strike on a platform."""
    return [
        name
        for name, fault in FAULTS.items()
        if issubclass(platform, fault.on) and not {name, fault.place} & platform.without
    ]


def choose(cycle: int, rng: random.Random, names: list[str]) -> list[Fault]:
    """One fault, each of them in turn, or two that strike at different places."""
    first = FAULTS[names[cycle % len(names)]]
    others = [
        other
        for other in map(FAULTS.__getitem__, names)
        if other.place != first.place and not other.alone and not first.alone
    ]
    return [first, rng.choice(others)] if others and rng.random() < _OFTEN_TWO else [first]
