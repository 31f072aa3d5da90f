"""The status line of `make up`: the rate of readings, or what is not well; each second on a terminal, else less often.

The line fits the terminal: a longer one would wrap, and could not be replaced by the next.
"""

import os
import time
from dataclasses import dataclass
from typing import TextIO

from prometheus_client.parser import text_string_to_metric_families

from local.parts import Parts
from local.troubles import troubles

_INTERVAL_S, _PLAIN_INTERVAL_S = 1.0, 10.0
_LIVE_SQL = "SELECT count(*) FROM vehicle_live_status WHERE received_at > now() - interval '5 minutes'"
_CLEAR = "\r\x1b[2K"


@dataclass(frozen=True, slots=True)
class Figures:
    """Totals since the start of the bridge and the API, and the vehicles with a reading in the last five minutes."""

    stored: int
    rejected: int
    vehicles: int


class LiveLine:
    """Prints the changes since the previous line, at regular intervals."""

    def __init__(self, platform: Parts, out: TextIO) -> None:
        self._platform = platform
        self._out = out
        self._terminal = out.isatty()
        self._interval_s = _INTERVAL_S if self._terminal else _PLAIN_INTERVAL_S
        self._stored, self._last_at = 0, time.monotonic()

    def wait(self) -> bool:
        """Pause briefly; return whether the next line is due."""
        time.sleep(0.2)
        return time.monotonic() - self._last_at >= self._interval_s

    def show(self) -> None:
        """Print the line: the figures, or what is not well."""
        if found := troubles(self._platform):
            self._last_at = time.monotonic()
            return self._print(f"not well: {'; '.join(found)}")
        try:
            figures = _figures(self._platform)
        except (OSError, RuntimeError):  # it became unwell meanwhile: the next line says so
            return None
        return self._print(self._changes(figures, time.monotonic()))

    def _changes(self, figures: Figures, now: float) -> str:
        # A counter restarts with its process, and must not result in a negative rate.
        rate = max(0, figures.stored - self._stored) / (now - self._last_at)
        self._stored, self._last_at = figures.stored, now
        return f"{rate:8,.1f} readings/s stored   {figures.vehicles:,} vehicles live   {figures.rejected:,} rejected"

    def _print(self, text: str) -> None:
        self._out.write(f"{_CLEAR}{_shortened(text, self._width())}" if self._terminal else f"{text}\n")
        self._out.flush()

    def _width(self) -> int:
        """Columns of the terminal; some wrap already when the last one is used."""
        return (os.get_terminal_size(self._out.fileno()).columns or 80) - 1


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _figures(platform: Parts) -> Figures:
    totals = [_outcomes(platform.bridge.get("/metrics")), _outcomes(platform.api.get("/metrics", platform.api_key))]
    return Figures(
        stored=sum(total.get("stored", 0) for total in totals),
        rejected=sum(total.get("rejected", 0) for total in totals),
        vehicles=int(platform.postgres.sql(_LIVE_SQL, platform.database)),
    )


def _outcomes(metrics: str) -> dict[str, int]:
    """The readings that a process committed, by outcome."""
    families = text_string_to_metric_families(metrics)
    samples = (sample for family in families if family.name == "fleet_readings" for sample in family.samples)
    return {s.labels["outcome"]: int(s.value) for s in samples if s.name == "fleet_readings_total"}
