"""What a run does: each second on a terminal (stderr), a line every ten seconds elsewhere (stdout)."""

import asyncio
import sys
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from simulator.tally import Latencies, Tally

_TERMINAL_S, _LOG_S = 1.0, 10.0


async def show(tally: Tally, console: Console, total: int | None) -> None:
    """Show the tally until cancelled, with a bar if the number of readings is known."""
    is_watched = sys.stderr.isatty()
    async with asyncio.TaskGroup() as group:
        if is_watched:
            group.create_task(_show_live(tally, total))
        if not is_watched or not console.is_terminal:
            lines = _every(_LOG_S, tally, lambda line: console.print(line, soft_wrap=True, highlight=False))
            group.create_task(lines)


async def _show_live(tally: Tally, total: int | None) -> None:
    # What is printed meanwhile has to be above the line, unless it goes elsewhere.
    redirected = sys.stdout.isatty()
    first = _picture(tally, summary(tally, 0.0), total)
    with Live(first, console=Console(stderr=True), auto_refresh=False, redirect_stdout=redirected) as live:
        await _every(_TERMINAL_S, tally, lambda line: live.update(_picture(tally, line, total), refresh=True))


def _picture(tally: Tally, line: str, total: int | None) -> RenderableType:
    if total is None:
        return Text(line)
    share = f"{min(1.0, tally.sent / max(1, total)):4.0%} of {total:,} readings sent"
    return Group(ProgressBar(total=total, completed=tally.sent, width=40), Text(share), Text(line))


async def _every(interval_s: float, tally: Tally, emit: Callable[[str], object]) -> None:
    sent, at = tally.sent, time.monotonic()
    while True:
        await asyncio.sleep(interval_s)
        now = time.monotonic()
        emit(summary(tally, (tally.sent - sent) / (now - at)))
        sent, at = tally.sent, now


def summary(tally: Tally, rate: float) -> str:
    """The tally in one line."""
    parts = [f"{tally.sent:,} readings", f"{rate:,.0f}/s", f"unacked {tally.unacknowledged:,}"]
    latencies = {
        "PUBACK": tally.puback_latency,
        "receipt": tally.receipt_latency,
        "HTTP": tally.answer_latency,
    }
    parts += [f"{name} {text}" for name, latency in latencies.items() if (text := _text(latency))]
    parts.append(f"rejects reported {tally.rejected:,}")
    if tally.warnings:
        parts.append(f"warnings reported {tally.warnings:,}")
    if tally.refused:
        parts.append(f"refused by the broker {tally.refused:,}")
    if tally.assignments_due:
        parts.append(f"assignments {tally.assignments:,} of {tally.assignments_due:,}")
    if tally.trouble:
        parts.append(f"retrying: {tally.trouble}")
    return " | ".join(parts)


def _text(latency: Latencies) -> str:
    values = [latency.percentile_ms(percent) for percent in (50, 95, 99)]
    return "" if None in values else "p50/95/99 " + "/".join(f"{value:.1f}" for value in values) + " ms"
