"""What happens to single NATS nodes, to the ways between them, and to a stream at its limit."""

import random
import signal
from collections.abc import Iterator

from tests.acceptance.chaos.fault import fault, link_faults
from tests.acceptance.chaos.nats_stack import STREAM, NatsStack
from tests.until import wait_until

_ELECTION_S = 1.5

link_faults("stream-route", lambda stack: stack.route_links, 2.0, on=NatsStack)


@fault("stream-node-kill", hold_s=_ELECTION_S, on=NatsStack)
def node_kill(stack: NatsStack, rng: random.Random) -> Iterator[None]:
    struck = [rng.choice(stack.nodes)]
    stack.kill_nodes(struck)
    yield
    stack.start_nodes(struck)


@fault("stream-leader-kill", hold_s=_ELECTION_S, on=NatsStack)
def leader_kill(stack: NatsStack, rng: random.Random) -> Iterator[None]:
    struck = [stack.nodes[stack.leader()]]
    stack.kill_nodes(struck)
    yield
    stack.start_nodes(struck)


@fault("stream-full", hold_s=2.0, alone=True, on=NatsStack, traffic_s=6.0)
def full(stack: NatsStack, rng: random.Random) -> Iterator[None]:
    """The bridge is frozen and the stream at its limit: devices get no PUBACK, and send again."""
    stack.bridge.process.send(signal.SIGSTOP)
    most = max(_messages(stack), 1)
    _limit(stack, most)
    wait_until(lambda: _messages(stack) >= most and _refuses(stack), "the stream refuses messages")
    yield
    stack.bridge.process.send(signal.SIGCONT)
    _limit(stack, -1)


def _messages(stack: NatsStack) -> int:
    """How many messages the stream has."""
    return int(stack.ask(f"STREAM.INFO.{STREAM}")["state"]["messages"])


def _refuses(stack: NatsStack) -> bool:
    """Whether the stream, which is at its limit, refuses a message of a device for this reason."""
    answer = stack.request("$MQTT.msgs.fleet.vehicle.PROBE.telemetry", b"{}")
    return "maximum messages exceeded" in answer.get("error", {}).get("description", "")


def _limit(stack: NatsStack, messages: int) -> None:
    config = stack.ask(f"STREAM.INFO.{STREAM}")["config"]
    answer = stack.ask(f"STREAM.UPDATE.{STREAM}", {**config, "max_msgs": messages})
    assert "error" not in answer, answer
