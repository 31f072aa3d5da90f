"""`python -m tests.acceptance.chaos --cycles N --seed S [--fault NAME] [--report FILE]`: the long fault run."""

import contextlib
import random
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tests.acceptance.chaos.fault import CannotHappenHere
from tests.acceptance.chaos.nemesis import FAULTS, choose
from tests.acceptance.chaos.processes import Stuck
from tests.acceptance.chaos.report import Report
from tests.acceptance.chaos.runner import Load, examine_all, run_cycle
from tests.acceptance.chaos.stack import Stack


def main() -> int:
    options = _options()
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    directory.chmod(0o755)
    report, started, sound = Report(options.seed), time.monotonic(), False
    stack = Stack(directory, options.seed)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # what there is so far is reconciled
            sound = _run(stack, options, report)
        everything = examine_all(stack)
        report.close(everything, stack.kills, stack.most_memory, time.monotonic() - started)
        sound &= everything.sound
        if not everything.sound:
            print(f"the whole run: {everything}")
    except Stuck as stuck:
        print(f"stuck: {stuck}")
    finally:
        stack.close()
    print(report)
    report.write(options.report or directory.with_suffix(".json"))
    if sound:
        shutil.rmtree(directory)
        return 0
    print(f"failed; replay with --seed {options.seed} --first {report.cycles}; logs and ledger: {directory}")
    return 1


def _run(stack: Stack, options: Namespace, report: Report) -> bool:
    """Cycle after cycle until one is not sound."""
    for cycle in range(options.first, options.first + options.cycles):
        rng = random.Random(f"{options.seed}:{cycle}:faults")
        faults = choose(cycle, rng, options.fault or list(FAULTS))
        names = [fault.name for fault in faults]
        load = Load(
            round(options.messages * rng.uniform(0.5, 1.5)), options.rate * rng.choice([0.5, 1, 2]), options.hold
        )
        began = time.monotonic()
        try:
            verdict = run_cycle(stack, cycle, faults, rng, load)
        except CannotHappenHere as why:
            report.skipped[names[0]] = str(why)
            continue
        report.add(names, verdict)
        print(f"{cycle:4d} {' + '.join(names)}: {verdict} ({time.monotonic() - began:.1f} s)", flush=True)
        if not verdict.sound:
            return False
    return True


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.acceptance.chaos", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--first", type=int, default=0, help="the first cycle, to replay a failing one")
    parser.add_argument("--messages", type=int, default=1000, help="about so many a cycle")
    parser.add_argument("--rate", type=float, default=500.0, help="messages a second")
    parser.add_argument("--hold", type=float, default=1.0, help="make faults last so many times as long")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only these")
    parser.add_argument("--report", type=Path, help="where the figures go, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
