"""The attack suite sees a bound that was taken away, and a program that keeps the victim waiting."""

import signal
import threading
from pathlib import Path

from tests.acceptance.attacks.outcome import bars
from tests.acceptance.attacks.runner import run_attack
from tests.acceptance.attacks.stack import Stack
from tests.acceptance.attacks.suite import ATTACKS
from tests.until import wait_until

_SECONDS = 4.0


def test_bodies_without_a_budget_are_seen(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"FLEET_HTTP_BODY_BUDGET_MIB": "4096"})
    try:
        outcome = run_attack(stack, ATTACKS["half-sent"], _SECONDS)
    finally:
        stack.close()
    assert any(found.startswith("api took") for found in outcome.breaches(bars())), outcome


def test_bridge_that_stands_still_is_seen(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    bridge = stack.platform.bridge.process
    stop, go_on = (threading.Timer(after_s, bridge.send, [number]) for after_s, number in _STILL)
    try:
        stop.start()
        go_on.start()
        outcome = run_attack(stack, ATTACKS["reconnecting"], 2 * _SECONDS)
    finally:
        stop.cancel()
        go_on.cancel()
        bridge.send(signal.SIGCONT)
        stack.close()
    assert any(found.startswith("MQTT waited") for found in outcome.breaches(bars())), outcome


def test_broker_that_has_ended_is_seen(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    broker = stack.platform.broker.process
    kill = threading.Timer(_STILL[0][0], broker.send, [signal.SIGKILL])
    try:
        kill.start()
        outcome = run_attack(stack, ATTACKS["reconnecting"], _SECONDS)
        wait_until(lambda: not broker.running)
    finally:
        kill.cancel()
        stack.close()
    found = outcome.breaches(bars())
    assert "Mosquitto has ended" in found
    assert any("readings were not stored" in each for each in found)


_STILL = ((4.0, signal.SIGSTOP), (7.0, signal.SIGCONT))
"""Seconds after the begin, when the victim is ready."""
