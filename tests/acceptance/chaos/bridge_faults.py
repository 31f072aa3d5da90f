"""What happens to the bridge process: killed at named points and at random, stopped, frozen, doubled, flooded."""

import random
import signal
from collections.abc import Iterator

from tests.acceptance.chaos.fault import Course, fault
from tests.acceptance.chaos.processes import Stuck
from tests.acceptance.chaos.stack import Stack
from tests.until import wait_until

_MOST_MEMORY = 300 * 1024 * 1024


@fault("bridge-kill")
def kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.kill_bridge()
    yield


def _crash_at(point: str) -> Course:
    def course(stack: Stack, rng: random.Random) -> Iterator[None]:
        stack.kill_bridge()
        crashing = stack.start_bridge((point, 1))  # a busy machine may take all of a short load in one batch
        yield
        wait_until(lambda: crashing.process.exit_code == -signal.SIGKILL, f"the crash at {point}")

    return course


for _point in ("received", "before-commit", "after-commit", "mid-acks"):
    fault(f"bridge-crash-{_point}", alone=True)(_crash_at(_point))


@fault("bridge-sigterm")
def sigterm(stack: Stack, rng: random.Random) -> Iterator[None]:
    stopped = stack.bridge.process
    code = stopped.stop()
    if code != 0:
        raise Stuck(f"SIGTERM: the bridge exits with {code}:\n{stopped.log_tail()}")
    yield


@fault("bridge-sigstop", hold_s=4.0)
def sigstop(stack: Stack, rng: random.Random) -> Iterator[None]:
    """Longer than the keep-alive: the broker gives it up, and it must find out."""
    frozen = stack.bridge.process
    frozen.send(signal.SIGSTOP)
    yield
    frozen.send(signal.SIGCONT)


@fault("bridge-two-of-one-name", alone=True)
def two_bridges(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The second stands by; when the first is killed it takes over within seconds."""
    wait_until(lambda: stack.bridge.metric("fleet_bridge_leader") == 1, "the first bridge works")
    first, second = stack.bridge, stack.start_bridge()
    wait_until(lambda: second.metric("process_start_time_seconds") > 0, "the second bridge is up")
    if second.metric("fleet_bridge_leader") or not first.metric("fleet_bridge_leader"):
        raise Stuck("two bridges of one name work at once")
    first.process.kill()
    yield
    wait_until(lambda: second.metric("fleet_bridge_leader") == 1, "the second bridge takes over", 5)


@fault("bridge-away", hold_s=1.5)
def away(stack: Stack, rng: random.Random) -> Iterator[None]:
    """A backlog builds up in the broker and is drained."""
    stack.supervised = False
    stack.bridge.process.stop()
    yield
    stack.supervised = True


@fault("bridge-overload", hold_s=2.0)
def overload(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The database takes a fraction of what comes: memory stays bounded, the rest waits in the broker."""
    stack.database_link.delay(0.15)
    yield
    stack.database_link.heal()
    if stack.most_memory > _MOST_MEMORY:
        raise Stuck(f"the bridge has used {stack.most_memory} bytes")
