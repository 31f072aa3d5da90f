"""`python -m tests.bench [--quick] [--rows N] [--minutes N] [--directory DIR] [T1 T2 ...]`."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from tests.bench import (
    alarms,
    closing,
    end_to_end,
    endurance,
    figures,
    growth,
    kafka,
    keeping,
    latency,
    overload,
    page,
    posts,
    questions,
    replicas,
    report,
    standby,
    streams,
    tls,
    watching,
    writes,
)
from tests.bench.machine import Machine

MEASURES = {
    ("T1", "T3"): end_to_end.t1_t3,
    ("T1-TLS",): tls.t1_tls,
    ("T2",): writes.t2,
    ("T4",): end_to_end.t4,
    ("T5",): end_to_end.t5,
    ("T6",): posts.t6,
    ("T7",): posts.t7,
    ("T8",): questions.t8,
    ("T9",): growth.t9,
    ("T9b",): growth.t9b,
    ("T10",): latency.t10,
    ("T11",): writes.t11,
    ("T12",): end_to_end.t12,
    ("T13",): endurance.t13,
    ("T13-OVERLOAD",): overload.t13_overload,
    ("F1",): figures.f1,
    ("F2",): figures.f2,
    ("F3",): figures.f3,
    ("F4",): figures.f4,
    ("F5",): keeping.f5,
    ("F6",): keeping.f6,
    ("F7",): closing.f7,
    ("F8",): closing.f8,
    ("F9",): figures.f9,
    ("F10",): keeping.f10,
    ("L1",): watching.l1,
    ("L2",): watching.l2,
    ("P1", "P2"): page.p1_p2,
    ("P3",): page.p3,
    ("A1",): alarms.a1,
    ("S1", "S3"): streams.s1_s3,
    ("S2", "S3"): kafka.s2_s3,
    ("S4",): streams.s4,
    ("S5",): streams.s5,
    ("S6",): replicas.s6,
    ("S7",): standby.s7,
    ("S8",): standby.s8,
}
QUICK = {"T1", "T2", "T3", "T6", "T8"}


def main(
    only: Annotated[list[str] | None, typer.Argument(metavar="[T1 T2 ...]", help="Run only these measures.")] = None,
    quick: Annotated[bool, typer.Option(help="Run T1, T2, T3, T6 and T8 only, in under five minutes.")] = False,
    rows: Annotated[int, typer.Option(help="Rows of the large history; 0: 100 million, or 10 million if quick.")] = 0,
    minutes: Annotated[float, typer.Option(help="Length of T13; 0: ten minutes, or one if quick.")] = 0,
    directory: Annotated[Path | None, typer.Option(help="Directory for the files of the servers.")] = None,
) -> None:
    """Measure, compare with the previous run, store the result in bench-results/."""
    known = {name for names in MEASURES for name in names}
    wanted = set(only or (QUICK & known if quick else known))
    if unknown := wanted - known:
        raise typer.BadParameter(f"unknown measure {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    rows = rows or (10_000_000 if quick else 100_000_000)
    minutes = minutes or (1 if quick else 10)
    found: list[report.Figure] | None = None
    interrupted = contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt)
    with interrupted, tempfile.TemporaryDirectory(dir=directory, prefix="fleet-bench-") as private:
        found = uvloop.run(_measure(Machine(Path(private) / "servers", quick, rows, minutes), wanted))
    if found is None:
        raise typer.Exit(130)  # interrupted, and nothing is left behind
    before = report.earlier()
    print(report.table(found, before))
    print(f"stored in {report.save(found, quick)}")


async def _measure(machine: Machine, wanted: set[str]) -> list[report.Figure]:
    """Run the selected measures; on SIGTERM or Ctrl-C all servers are stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    measured: list[report.Figure] = []
    async with machine.running():
        for names, measure in MEASURES.items():
            if wanted.intersection(names):
                print(f"{' '.join(names)} ...", file=sys.stderr, flush=True)
                found = await measure(machine)
                for figure in found:
                    print(f"   {figure.measure}: {figure.value:.2f}{figure.unit}  {figure.detail}", file=sys.stderr)
                measured += found
    return measured


if __name__ == "__main__":
    typer.run(main)
