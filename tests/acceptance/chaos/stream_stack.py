"""The platforms under test whose bridges share the partitions of a stream."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from local.kafka import START_TIMEOUT_S
from local.process import Process
from tests.acceptance.chaos.link import Link
from tests.acceptance.chaos.processes import Bridge
from tests.acceptance.chaos.stack import Stack


class Node(Protocol):
    """One server of a stream."""

    process: Process
    store: Path
    """The directory of what it keeps."""

    @property
    def is_open(self) -> bool:
        """Whether it accepts connections."""
        ...


class StreamStack(Stack):
    """A link before each server of the stream, for the bridges."""

    without = frozenset({"bridge-two-of-one-name", "bridge-crash-mid-acks"})
    partitions: ClassVar[int]
    """Of the stream."""
    owned: ClassVar[str]
    """The metric that says how many of them a bridge reads."""
    nodes: Sequence[Node]
    stream_links: Sequence[Link]

    def owns(self, bridge: Bridge, partitions: int) -> bool:
        """Whether a bridge reads so many partitions."""
        return bridge.metric(self.owned) == partitions

    def kill_nodes(self, nodes: Sequence[Node]) -> None:
        """kill -9 of these servers."""
        for node in nodes:
            node.process.kill()
            self.kills += 1

    def stop_nodes(self) -> None:
        """Stop all servers in order."""
        for node in self.nodes:
            node.process.stop()

    def start_nodes(self, nodes: Sequence[Node]) -> None:
        """Start these servers, and wait until they accept connections."""
        for node in nodes:
            node.process.start()
        for node in nodes:
            node.process.wait_until(lambda node=node: node.is_open, START_TIMEOUT_S)  # type: ignore[misc]
