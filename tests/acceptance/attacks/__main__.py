"""`python -m tests.acceptance.attacks [--only NAME] [--seconds S] [--json FILE]`: run attacks and print the table."""

import json
import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.acceptance.attacks.attack import Attack
from tests.acceptance.attacks.outcome import HEADER, Outcome, bars
from tests.acceptance.attacks.runner import MQTT_BYTES_PER_S, run_attack
from tests.acceptance.attacks.stack import Stack
from tests.acceptance.attacks.suite import ATTACKS


def main() -> int:
    options = _options()
    chosen = [ATTACKS[name] for name in options.only or ATTACKS]
    directory = Path(tempfile.mkdtemp(prefix="attacks-"))
    directory.chmod(0o755)
    outcomes = _run(directory, chosen, options.seconds, options.mqtt_rate)
    if options.json:
        figures = [{**asdict(outcome), "attack": outcome.attack.name} for outcome in outcomes]
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    broken = [outcome for outcome in outcomes if outcome.breaches(bars())]
    if broken:
        print(f"{len(broken)} of {len(outcomes)} attacks were above a bar; logs: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


def _run(directory: Path, attacks: Sequence[Attack], seconds: float, mqtt_bytes_per_s: float) -> list[Outcome]:
    """A stack for all of them; a new one after an attack that was above a bar, which may have left something."""
    outcomes, stack = [], None
    print(HEADER, flush=True)
    try:
        for number, attack in enumerate(attacks):
            stack = stack or Stack(directory / str(number))
            outcome = run_attack(stack, attack, seconds, mqtt_bytes_per_s)
            outcomes.append(outcome)
            print(outcome.row(bars()), flush=True)
            print(
                f"  {attack.name}: {dict(outcome.done)}, refused {outcome.waits.refused}", file=sys.stderr, flush=True
            )
            if outcome.breaches(bars()):
                stack.close()
                stack = None
    finally:
        if stack is not None:
            stack.close()
    return outcomes


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.acceptance.attacks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ATTACKS), help="only these")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each attack lasts")
    parser.add_argument(
        "--mqtt-rate", type=float, default=MQTT_BYTES_PER_S, help="bytes/s of the device; 0: what the broker reads"
    )
    parser.add_argument("--json", type=Path, help="where the figures go, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
