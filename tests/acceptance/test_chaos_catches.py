"""Tests of the fault injection itself: each injected bug is detected, and nothing is reported without one."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulator.findings import Findings
from tests.acceptance.chaos.fault import Fault
from tests.acceptance.chaos.report import described, found
from tests.acceptance.chaos.runner import Load, examine_all, run_cycle
from tests.acceptance.chaos.stack import Stack
from tests.acceptance.chaos.workload import ENOUGH
from tests.until import wait_until

_LOAD = Load(count=500, rate=500.0)
Course = Callable[[Stack, random.Random], Iterator[None]]


def cycle(directory: Path, course: Course, planted: tuple[str, int] | None = None) -> Findings:
    """One cycle with a bug injected into the first bridge; its successors have no bug."""
    stack = Stack(directory, seed=1, first=planted)
    try:
        return run_cycle(stack, 0, [Fault("planted", course, 0.5, alone=True)], random.Random(1), _LOAD)
    finally:
        stack.close()


def kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.kill_bridge()
    yield


def kill_after_an_ack(stack: Stack, rng: random.Random) -> Iterator[None]:
    wait_until(lambda: stack.bridge.metric("fleet_mqtt_acks_total") > ENOUGH, "the bridge acknowledges")
    stack.kill_bridge()
    yield


def nothing(stack: Stack, rng: random.Random) -> Iterator[None]:
    yield


def remove_key(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The history without its key, then a crash between commit and ack: all is written again."""
    for kind in ("vehicle", "meter"):
        stack.sql(f"ALTER TABLE {kind}_telemetry_history DROP CONSTRAINT {kind}_telemetry_history_pkey")
    stack.kill_bridge()
    crashing = stack.start_bridge(("after-commit", 1))  # there may be one batch only: all that waited
    yield
    wait_until(lambda: crashing.process.exit_code is not None, "the crash")


def broker_forgets(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The broker loses its session while a slow batch is written: packet ids restart, too."""
    slow = stack.bridge
    stack.broker.process.kill()
    for file in (stack.broker.directory / "data").iterdir():
        file.unlink()
    stack.broker.start()
    stack.forgive_broker()
    yield
    wait_until(lambda: slow.process.exit_code is not None, "stale acks, and the crash")


@pytest.mark.parametrize("course", [nothing, kill])
def test_sound_bridge_passes(course: Course, tmp_path: Path) -> None:
    findings = cycle(tmp_path, course)
    assert findings.clean, described(findings)


@pytest.mark.parametrize(
    ("planted", "course", "finding"),
    [
        (("ack-before-commit", 0), kill_after_an_ack, "lost"),
        (("dropped-batch", 1), nothing, "lost"),
        (("stale-acks", 0), broker_forgets, "lost"),
        (None, remove_key, "doubled"),
    ],
    ids=["ack-before-commit", "dropped-batch", "ack-on-a-stale-connection", "doubled-insert"],
)
def test_planted_bug_is_found(planted: tuple[str, int] | None, course: Course, finding: str, tmp_path: Path) -> None:
    findings = cycle(tmp_path, course, planted)
    assert found(findings)[finding], described(findings)


def test_wrong_figures_are_found_and_called_so(tmp_path: Path) -> None:
    """The rows are right; what the API makes of them is not, because it takes meters for slower than they are."""
    stack = Stack(tmp_path, seed=1)
    try:
        run_cycle(stack, 0, [Fault("planted", nothing, 0.5, alone=True)], random.Random(1), _LOAD)
        stack.sql("INSERT INTO device (kind, id, interval_s) SELECT 'meter', meter_id, 3600 FROM meter_live_status")
        findings = examine_all(stack)
    finally:
        stack.close()
    counts = found(findings)
    assert counts.pop("figures_wrong") > 10
    assert not any(counts.values()), described(findings)
