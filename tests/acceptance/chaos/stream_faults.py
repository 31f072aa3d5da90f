"""What happens to the servers of a stream, to the ways there from the bridges, and to the bridges that share it."""

import random
import shutil
from collections.abc import Iterator

from tests.acceptance.chaos.fault import fault, link_faults
from tests.acceptance.chaos.stream_stack import StreamStack
from tests.until import wait_until

_PARTITION_S = 4.0

link_faults("stream-link", lambda stack: stack.stream_links, _PARTITION_S, on=StreamStack)


@fault("stream-all-kill", on=StreamStack)
def all_kill(stack: StreamStack, rng: random.Random) -> Iterator[None]:
    """Their files are in the operating system's memory, so what they acknowledged holds."""
    stack.kill_nodes(stack.nodes)
    yield
    stack.start_nodes(stack.nodes)


def _one_owns(stack: StreamStack, partitions: int) -> bool:
    """Whether the newest bridge reads so many; there is none for a moment after an earlier fault has killed it."""
    return any(stack.owns(bridge, partitions) for bridge in stack.bridges[-1:])


@fault("stream-two-bridges", alone=True, on=StreamStack)
def two_bridges(stack: StreamStack, rng: random.Random) -> Iterator[None]:
    """They share the partitions; when the first is killed, the second takes its partitions over within seconds."""
    all_of_them = stack.partitions
    wait_until(lambda: _one_owns(stack, all_of_them), "the first bridge reads all partitions")
    first, second = stack.bridge, stack.start_bridge()
    wait_until(lambda: stack.owns(second, all_of_them // 2), "the second bridge has its share")
    first.process.kill()
    yield
    wait_until(lambda: stack.owns(second, all_of_them), "the second bridge takes over", 5)


@fault("stream-rebalance-kill", on=StreamStack)
def rebalance_kill(stack: StreamStack, rng: random.Random) -> Iterator[None]:
    """One of two bridges dies while the first gives partitions up and the second does not have them yet."""
    all_of_them = stack.partitions
    wait_until(lambda: _one_owns(stack, all_of_them), "the first bridge reads all partitions")
    first, second = stack.bridge, stack.start_bridge()
    wait_until(lambda: not stack.owns(first, all_of_them), "the first bridge gives partitions up")
    rng.choice([first, second]).process.kill()
    yield


@fault("stream-old-snapshot", alone=True, on=StreamStack)
def old_snapshot(stack: StreamStack, rng: random.Random) -> Iterator[None]:
    """It forgets what is new, and delivers again what was acknowledged long ago."""
    stack.stop_nodes()
    for node in stack.nodes:
        shutil.copytree(node.store, node.store.with_suffix(".old"))
    stack.start_nodes(stack.nodes)
    yield
    stack.stop_nodes()
    for node in stack.nodes:
        shutil.rmtree(node.store)
        node.store.with_suffix(".old").rename(node.store)
    stack.start_nodes(stack.nodes)
    stack.forgive_broker()
