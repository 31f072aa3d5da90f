"""One line a second on a terminal, one every ten seconds elsewhere: rate, unacked, latencies, rejects."""

import asyncio
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from simulator.tally import Latencies, Tally

_TERMINAL_S, _LOG_S = 1.0, 10.0


async def show(tally: Tally, console: Console) -> None:
    """Show the tally until cancelled."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            await _every(_TERMINAL_S, tally, lambda line: live.update(Text(line), refresh=True))
    else:
        await _every(_LOG_S, tally, lambda line: console.print(line, soft_wrap=True, highlight=False))


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
    if tally.assignments:
        parts.append(f"assignments {tally.assignments:,}")
    if tally.trouble:
        parts.append(f"retrying: {tally.trouble}")
    return " | ".join(parts)


def _text(latency: Latencies) -> str:
    values = [latency.percentile_ms(percent) for percent in (50, 95, 99)]
    return "" if None in values else "p50/95/99 " + "/".join(f"{value:.1f}" for value in values) + " ms"
