"""The faults of a relay and of Kafka, once each, and the bugs that they must reveal."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.chaos.fault import Course, Fault
from tests.acceptance.chaos.kafka_stack import TOPIC, KafkaStack
from tests.acceptance.chaos.nemesis import FAULTS, possible
from tests.acceptance.chaos.one_by_one import OneByOne, one_by_one
from tests.acceptance.chaos.report import described, found
from tests.acceptance.chaos.runner import Load, run_cycle
from tests.acceptance.chaos.workload import ENOUGH
from tests.kafka_records import Topic
from tests.until import wait_until

pytestmark = pytest.mark.usefixtures("jars")
_LOAD = Load(count=300, rate=400.0)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneByOne]:
    with one_by_one(KafkaStack, tmp_path_factory.mktemp("chaos")) as faults:
        yield faults


@pytest.mark.parametrize("name", [name for name in possible(KafkaStack) if FAULTS[name].place in ("stream", "relay")])
def test_nothing_is_lost_or_counted_twice_by(name: str, faults: OneByOne) -> None:
    fewest = 50 if name == "stream-old-snapshot" else 250  # it forgets what the bridge has not read yet
    assert faults.strike(name, _LOAD).seen["readings in the history"] > fewest


def bridge_dies(stack: KafkaStack, rng: random.Random) -> Iterator[None]:
    """When Kafka has an offset of records that the bridge has read and not written."""
    wait_until(lambda: Topic(stack.kafka.url, TOPIC).committed() > ENOUGH, "the bridge commits offsets")
    stack.kill_bridge()
    yield


def kafka_and_relay_die(stack: KafkaStack, rng: random.Random) -> Iterator[None]:
    """The relay acknowledges while Kafka is away, and then dies too."""
    before = stack.relays[0].metric("fleet_relay_acks_total")
    stack.kill_nodes(stack.nodes)
    wait_until(lambda: stack.relays[0].metric("fleet_relay_acks_total") > before + ENOUGH, "the relay acknowledges")
    stack.kill_relays()
    yield
    stack.start_nodes(stack.nodes)


@pytest.mark.parametrize(
    ("first", "first_relay", "course"),
    [(("offset-before-commit", 0), None, bridge_dies), (None, ("ack-before-stream", 0), kafka_and_relay_die)],
    ids=["offset-before-commit", "ack-before-stream"],
)
def test_planted_bug_is_found(
    first: tuple[str, int] | None, first_relay: tuple[str, int] | None, course: Course, tmp_path: Path
) -> None:
    stack = KafkaStack(tmp_path, 1, first, first_relay)
    try:
        findings = run_cycle(stack, 0, [Fault("planted", course, 0.5, alone=True)], random.Random(1), _LOAD)
    finally:
        stack.close()
    assert found(findings)["lost"], described(findings)
