"""What happens to a NATS cluster and to the ways there from the bridge. They need a `StreamStack`."""

import random
import shutil
import signal
from collections.abc import Iterator

from tests.acceptance.chaos.fault import fault, repeatedly
from tests.acceptance.chaos.stack import Stack
from tests.acceptance.chaos.stream_stack import STREAM, StreamStack
from tests.until import wait_until


def _of(stack: Stack) -> StreamStack:
    assert isinstance(stack, StreamStack)
    return stack


def _kill(stack: StreamStack, numbers: list[int]) -> None:
    for number in numbers:
        stack.nats.nodes[number].process.kill()
        stack.kills += 1


def _start(stack: StreamStack, numbers: list[int]) -> None:
    for number in numbers:
        stack.nats.nodes[number].process.start()
    for number in numbers:
        node = stack.nats.nodes[number]
        node.process.wait_until(lambda node=node: node.is_open)  # type: ignore[misc]


@fault("stream-node-kill", hold_s=1.5)
def node_kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    cluster, number = _of(stack), rng.randrange(3)
    _kill(cluster, [number])
    yield
    _start(cluster, [number])


@fault("stream-leader-kill", hold_s=1.5)
def leader_kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    cluster = _of(stack)
    number = cluster.leader()
    _kill(cluster, [number])
    yield
    _start(cluster, [number])


@fault("stream-all-kill")
def all_kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    """Their files are in the operating system's memory, so what they acknowledged holds."""
    cluster = _of(stack)
    _kill(cluster, [0, 1, 2])
    yield
    _start(cluster, [0, 1, 2])


@fault("stream-link-cut", hold_s=2.0)
def link_cut(stack: Stack, rng: random.Random) -> Iterator[None]:
    def cut() -> None:
        for link in _of(stack).stream_links:
            link.cut()

    with repeatedly(cut, rng, 0.05, 0.5):
        yield


@fault("stream-link-stalls", hold_s=4.0)
def link_stalls(stack: Stack, rng: random.Random) -> Iterator[None]:
    links = _of(stack).stream_links
    for link in links:
        link.stall()
    yield
    for link in links:
        link.heal()


@fault("stream-link-swallows", hold_s=4.0)
def link_swallows(stack: Stack, rng: random.Random) -> Iterator[None]:
    links = _of(stack).stream_links
    for link in links:
        link.swallow()
    yield
    for link in links:
        link.heal()


@fault("stream-two-bridges", alone=True)
def two_bridges(stack: Stack, rng: random.Random) -> Iterator[None]:
    """They share the partitions; when the first is killed, the second takes its partition over within seconds."""
    wait_until(lambda: stack.bridge.metric("fleet_jetstream_connected") == 2, "the first bridge reads both partitions")
    first, second = stack.bridge, stack.start_bridge()
    wait_until(lambda: second.metric("fleet_jetstream_connected") == 1, "the second bridge has its share")
    first.process.kill()
    yield
    wait_until(lambda: second.metric("fleet_jetstream_connected") == 2, "the second bridge takes over", 5)


@fault("stream-full", hold_s=2.0, alone=True)
def full(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The bridge is frozen and the stream at its limit: devices get no PUBACK, and send again."""
    cluster = _of(stack)
    stack.bridge.process.send(signal.SIGSTOP)
    _limit(cluster, 100)
    yield
    stack.bridge.process.send(signal.SIGCONT)
    _limit(cluster, -1)


def _limit(stack: StreamStack, messages: int) -> None:
    config = stack.ask(f"STREAM.INFO.{STREAM}")["config"]
    answer = stack.ask(f"STREAM.UPDATE.{STREAM}", {**config, "max_msgs": messages})
    assert "error" not in answer, answer


@fault("stream-old-snapshot", alone=True)
def old_snapshot(stack: Stack, rng: random.Random) -> Iterator[None]:
    """It forgets what is new, and delivers again what was acknowledged long ago."""
    cluster = _of(stack)
    cluster.nats.stop()
    for node in cluster.nats.nodes:
        shutil.copytree(node.store, node.store.with_suffix(".old"))
    _start(cluster, [0, 1, 2])
    yield
    cluster.nats.stop()
    for node in cluster.nats.nodes:
        shutil.rmtree(node.store)
        node.store.with_suffix(".old").rename(node.store)
    _start(cluster, [0, 1, 2])
    stack.forgive_broker()
