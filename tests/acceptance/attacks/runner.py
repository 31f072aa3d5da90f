"""An attack: victim and attacker start, memory and disk are measured, both end."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from local.process import confine
from tests.acceptance.attacks.attack import Attack, Target
from tests.acceptance.attacks.outcome import Outcome
from tests.acceptance.attacks.stack import Stack
from tests.acceptance.attacks.victim import Access, Waits
from tests.acceptance.attacks.watch import Watch

ROOT = Path(__file__).parents[3]
_MOST_MIB = 3_000.0
"""A process that takes more ends the attack, because the machine is needed."""
MQTT_BYTES_PER_S = 10_000_000.0
"""The line of the attacking device, unless told otherwise: 80 Mbit/s, more than most have."""
_END_S = 40.0
_LOOK_EVERY_S = 0.05


class Broken(Exception):
    """The victim or the attacker could not do its part; the text says why."""


def run_attack(stack: Stack, attack: Attack, seconds: float, mqtt_bytes_per_s: float = MQTT_BYTES_PER_S) -> Outcome:
    """Run one attack for so long. Raises `Broken` when it was none."""
    disk = stack.disk_mib
    with _victim(stack.victim) as victim:
        with Watch(stack.pids, stack.ports, _MOST_MIB) as watch:
            with _attacker(attack, stack.target(mqtt_bytes_per_s), seconds) as attacker:
                _wait(attacker, watch)
                done, took_s = _result(attacker, attack, watch)
            waits = _waits(victim)
        ended = stack.platform.ended()
        grown = stack.disk_mib - disk if stack.platform.postgres.process.running else 0.0
    return Outcome(
        attack, waits, watch.peaks_mib, watch.kernel_mib, grown, done, took_s, ended[0].process.name if ended else None
    )


def _wait(attacker: "subprocess.Popen[str]", watch: Watch) -> None:
    while attacker.poll() is None and not watch.too_much.is_set():
        time.sleep(_LOOK_EVERY_S)
    if attacker.poll() is None:
        attacker.kill()


def _result(attacker: "subprocess.Popen[str]", attack: Attack, watch: Watch) -> tuple[dict[str, int], float]:
    output, _ = attacker.communicate()
    if watch.too_much.is_set():
        return {}, 0.0
    if attacker.returncode:
        raise Broken(f"the attacker of {attack.name} ended with {attacker.returncode}")
    found = json.loads(output)
    return found["done"], found["took_s"]


def _waits(victim: "subprocess.Popen[str]") -> Waits:
    try:
        output, _ = victim.communicate("stop\n", timeout=_END_S)
        return Waits(**json.loads(output))
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise Broken(f"the victim has no result: {error}") from None


@contextlib.contextmanager
def _victim(access: Access) -> Iterator["subprocess.Popen[str]"]:
    with _module("victim") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(access)) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise Broken("the victim is not ready")
        yield process


@contextlib.contextmanager
def _attacker(attack: Attack, target: Target, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    with _module("attacker", attack.name, str(seconds)) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(target)))
        process.stdin.close()
        process.stdin = None
        yield process


@contextlib.contextmanager
def _module(name: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A module of this folder as a process, which is killed at the end if it runs still."""
    with subprocess.Popen(
        [*confine(signal.SIGKILL, as_service=False), sys.executable, "-m", f"{__package__}.{name}", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C reaches the suite only
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
