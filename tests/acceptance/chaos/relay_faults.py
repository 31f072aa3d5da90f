"""What happens to the relays between MQTT and Kafka, and to the disk of Kafka."""

import random
from collections.abc import Iterator

from tests.acceptance.chaos.disk import filled
from tests.acceptance.chaos.fault import fault, link_faults, repeatedly
from tests.acceptance.chaos.kafka_stack import KafkaStack
from tests.acceptance.chaos.processes import Stuck
from tests.acceptance.chaos.stack import START_S
from tests.until import wait_until

link_faults("relay-link", lambda stack: [stack.relays_link], 4.0, on=KafkaStack)


@fault("relay-kill", hold_s=2.0, on=KafkaStack)
def kill(stack: KafkaStack, rng: random.Random) -> Iterator[None]:
    """Some of what it has published is not acknowledged to the broker yet, so it is published again."""
    with repeatedly(stack.kill_relays, rng, 0.3, 2.0):
        yield


@fault("relay-sigterm", on=KafkaStack)
def sigterm(stack: KafkaStack, rng: random.Random) -> Iterator[None]:
    relay = stack.relays[0].process
    code = relay.stop()
    if code != 0:
        raise Stuck(f"SIGTERM: the relay exits with {code}:\n{relay.log_tail()}")
    yield


@fault("relay-two", hold_s=1.5, alone=True, on=KafkaStack)
def two(stack: KafkaStack, rng: random.Random) -> Iterator[None]:
    """Both publish everything, and one of them is killed meanwhile."""
    second = stack.start_relay("b")
    wait_until(second.ready, "the second relay is ready", START_S)
    yield
    stack.relays[0].process.kill()
    stack.kills += 1
    stack.supervise()
    stack.relays.remove(second)
    second.process.stop()


@fault("stream-disk-full", hold_s=3.0, alone=True, on=KafkaStack)
def disk_full(stack: KafkaStack, rng: random.Random) -> Iterator[None]:
    """Kafka gives its only directory up at the first write that fails, and ends; it is started when there is space."""
    with filled(stack.kafka_disk):
        wait_until(lambda: not stack.kafka.process.running, "Kafka has met the full disk")
        yield
    stack.start_nodes(stack.nodes)
