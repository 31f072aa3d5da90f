"""`python -m tests.acceptance.attacks [--only NAME] [--seconds S] [--json FILE]`: run attacks and print the table.

With `--device-rate` the platform and all clients are in a network of their own with mosquitto/device-rate.nft.
"""

import json
import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.acceptance.attacks.attack import Attack
from tests.acceptance.attacks.outcome import HEADER, WAIT_S, Outcome, bars
from tests.acceptance.attacks.runner import MQTT_BYTES_PER_S, run_attack
from tests.acceptance.attacks.stack import Stack
from tests.acceptance.attacks.suite import ATTACKS
from tests.device_rate import enter_own_network, limit


def main() -> int:
    options = _options()
    chosen = [ATTACKS[name] for name in options.only or ATTACKS]
    directory = Path(tempfile.mkdtemp(prefix="attacks-"))
    directory.chmod(0o755)
    if options.device_rate:
        enter_own_network()
    outcomes = _run(directory, chosen, options)
    if options.json:
        figures = [{**asdict(outcome), "attack": outcome.attack.name} for outcome in outcomes]
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    broken = [outcome for outcome in outcomes if outcome.breaches(bars(options.wait))]
    if broken:
        print(f"{len(broken)} of {len(outcomes)} attacks were above a bar; logs: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


def _run(directory: Path, attacks: Sequence[Attack], options: Namespace) -> list[Outcome]:
    """A stack for all of them; a new one after an attack that was above a bar, which may have left something."""
    outcomes, stack = [], None
    print(HEADER, flush=True)
    try:
        for number, attack in enumerate(attacks):
            stack = stack or _stack(directory / str(number), limited=options.device_rate)
            outcome = run_attack(stack, attack, options.seconds, 0 if options.device_rate else options.mqtt_rate)
            outcomes.append(outcome)
            print(outcome.row(bars(options.wait)), flush=True)
            print(
                f"  {attack.name}: {dict(outcome.done)}, refused {outcome.waits.refused}", file=sys.stderr, flush=True
            )
            if outcome.breaches(bars(options.wait)):
                stack.close()
                stack = None
    finally:
        if stack is not None:
            stack.close()
    return outcomes


def _stack(directory: Path, *, limited: bool) -> Stack:
    stack = Stack(directory)
    if limited:
        ports = stack.platform.ports
        limit(ports.mqtt_tls, ports.mqtt_password)
    return stack


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.acceptance.attacks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ATTACKS), help="only these")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each attack lasts")
    parser.add_argument(
        "--mqtt-rate", type=float, default=MQTT_BYTES_PER_S, help="bytes/s of the device; 0: what the broker reads"
    )
    parser.add_argument("--device-rate", action="store_true", help="limit devices by device-rate.nft instead (root)")
    parser.add_argument("--wait", type=float, default=WAIT_S, help="the bar of what others wait, in seconds")
    parser.add_argument("--json", type=Path, help="where the figures go, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
