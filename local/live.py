"""The live line of `make up`: what arrives, told once a second on a terminal, now and then elsewhere."""

import contextlib
import sys
import time
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from local.platform import Platform

_INTERVAL_S, _PLAIN_INTERVAL_S = 1.0, 10.0
_LIVE_SQL = "SELECT count(*) FROM vehicle_live_status WHERE received_at > now() - interval '5 minutes'"
_CLEAR = "\r\x1b[2K"


@dataclass(frozen=True, slots=True)
class Figures:
    """Totals since the start of the bridge and the API, and the vehicles heard in the last five minutes."""

    stored: int
    rejected: int
    vehicles: int


class LiveLine:
    """Waits for its next moment, then shows what happened since the last one."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._terminal = sys.stdout.isatty()
        self._interval_s = _INTERVAL_S if self._terminal else _PLAIN_INTERVAL_S
        self._stored, self._last_at = 0, time.monotonic()

    def wait(self) -> bool:
        """A short pause; whether it is time for the next line."""
        time.sleep(0.2)
        return time.monotonic() - self._last_at >= self._interval_s

    def show(self) -> None:
        """Print the line; nothing while a part is not answering, which is not for us to judge."""
        with contextlib.suppress(OSError, RuntimeError):
            self._show(_figures(self._platform), time.monotonic())

    def _show(self, figures: Figures, now: float) -> None:
        # A counter begins anew with its process, and must not show a negative rate.
        rate = max(0, figures.stored - self._stored) / (now - self._last_at)
        text = f"{rate:8,.1f} readings/s stored   {figures.vehicles:,} vehicles live   {figures.rejected:,} rejected"
        sys.stdout.write(f"{_CLEAR}{text}" if self._terminal else f"{text}\n")
        sys.stdout.flush()
        self._stored, self._last_at = figures.stored, now


def _figures(platform: Platform) -> Figures:
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
