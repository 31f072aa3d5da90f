"""`python -m tests.acceptance.chaos --cycles N --seed S [--stream nats|kafka | --standby] [--fault NAME]
[--report FILE]`: the long fault run."""

import random
import shutil
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bridge.errors import Misconfigured
from tests.acceptance.chaos.disk import CannotHappenHere
from tests.acceptance.chaos.kafka_stack import KafkaStack
from tests.acceptance.chaos.nats_stack import NatsStack
from tests.acceptance.chaos.nemesis import FAULTS, choose, possible
from tests.acceptance.chaos.pair_stack import PairStack
from tests.acceptance.chaos.processes import Stuck
from tests.acceptance.chaos.report import Report, described
from tests.acceptance.chaos.runner import Load, examine_all, run_cycle
from tests.acceptance.chaos.stack import Stack
from tests.acceptance.chaos.stopping import Abandoned, Stopping
from tests.until import NotInTime

_STREAMS: dict[str, type[Stack]] = {"nats": NatsStack, "kafka": KafkaStack}
_STOPPED = 128 + signal.SIGINT
"""The exit code of a run that was stopped before its last cycle, with nothing wrong so far."""


def main() -> int:
    options, stopping = _options(), Stopping()
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    directory.chmod(0o755)
    report = Report(options.seed)
    try:
        with stopping.listening():
            sound = _run(directory, options, report, stopping)
    except Misconfigured as error:
        shutil.rmtree(directory)
        print(error, file=sys.stderr)
        return 2
    print(report)
    report.write(options.report or directory.with_suffix(".json"))
    if not sound:
        print(f"failed; replay with --seed {options.seed} --first {report.cycle}; logs and ledger: {directory}")
        return 1
    shutil.rmtree(directory)
    return _STOPPED if stopping.asked else 0


def _run(directory: Path, options: Namespace, report: Report, stopping: Stopping) -> bool:
    """Every cycle, and then all of them together; whether nothing was wrong."""
    started, sound = time.monotonic(), False
    stack = _platform(options)(directory, options.seed)
    try:
        sound = _cycles(stack, options, report, stopping)
        everything = examine_all(stack, report.not_judged)
        report.close(everything, stack.kills, stack.most_memory, time.monotonic() - started)
        if not everything.clean:
            print(f"the whole run: {described(everything)}")
        return sound and everything.clean
    except (Stuck, NotInTime) as stuck:
        print(f"stuck: {stuck}")
        report.not_judged = report.cycle
        return False
    finally:
        stack.close()


def _cycles(stack: Stack, options: Namespace, report: Report, stopping: Stopping) -> bool:
    """Cycle after cycle until one is not sound or somebody asks to stop."""
    for cycle in range(options.first, options.first + options.cycles):
        if stopping.asked:
            break
        report.cycle = cycle
        try:
            with stopping.cycle():
                sound = _cycle(stack, options, report)
        except Abandoned:
            report.not_judged = cycle
            stack.end_programs()
            break
        if not sound:
            return False
    return True


def _cycle(stack: Stack, options: Namespace, report: Report) -> bool:
    rng = random.Random(f"{options.seed}:{report.cycle}:faults")
    faults = choose(report.cycle, rng, options.fault or possible(type(stack)))
    names = [fault.name for fault in faults]
    load = Load(round(options.messages * rng.uniform(0.5, 1.5)), options.rate * rng.choice([0.5, 1, 2]), options.hold)
    began = time.monotonic()
    try:
        findings = run_cycle(stack, report.cycle, faults, rng, load)
    except CannotHappenHere as why:
        report.skipped[names[0]] = str(why)
        return True
    report.add(names, findings)
    print(
        f"{report.cycle:4d} {' + '.join(names)}: {described(findings)} ({time.monotonic() - began:.1f} s)", flush=True
    )
    return findings.clean


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.acceptance.chaos", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--first", type=int, default=0, help="the first cycle, to replay a failing one")
    parser.add_argument("--messages", type=int, default=1000, help="about so many a cycle")
    parser.add_argument("--rate", type=float, default=500.0, help="messages a second")
    parser.add_argument("--hold", type=float, default=1.0, help="make faults last so many times as long")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only these")
    platform = parser.add_mutually_exclusive_group()
    of_stream = "nats: three NATS nodes instead of a broker; kafka: a relay and a Kafka broker behind the broker"
    platform.add_argument("--stream", choices=list(_STREAMS), help=of_stream)
    platform.add_argument("--standby", action="store_true", help="a synchronous standby beside PostgreSQL")
    parser.add_argument("--report", type=Path, help="where the figures go, as JSON")
    options = parser.parse_args()
    if others := set(options.fault or ()) - set(possible(_platform(options))):
        parser.error(f"cannot happen on this platform: {', '.join(sorted(others))}")
    return options


def _platform(options: Namespace) -> type[Stack]:
    if options.stream:
        return _STREAMS[options.stream]
    return PairStack if options.standby else Stack


if __name__ == "__main__":
    sys.exit(main())
