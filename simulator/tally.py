"""What has happened so far: counts and latencies for the terminal."""

from dataclasses import dataclass, field
from math import exp, log


class Latencies:
    """A histogram with buckets 5 % apart, from a microsecond on."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0

    def add(self, seconds: float, count: int = 1) -> None:
        bucket = int(log(max(seconds, 1e-6) * 1e6) * 20)
        self._counts[bucket] = self._counts.get(bucket, 0) + count
        self._total += count

    def percentile_ms(self, percent: float) -> float | None:
        """The latency that this share stays under, in milliseconds; None when there is none yet."""
        left = self._total * percent / 100
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return exp((bucket + 1) / 20) / 1000
        return None


@dataclass
class Tally:
    """Counts of items, from the lanes."""

    sent: int = 0
    pubacks: int = 0
    receipts: int = 0
    answered: int = 0
    refused: int = 0
    rejected: int = 0
    """Told to be rejected, by receipt or HTTP answer."""
    warnings: int = 0
    """Told of readings that are stored, by receipt or HTTP answer."""
    reconnects: int = 0
    assignments: int = 0
    trouble: str = ""
    """Why the last attempt to reach a server failed; empty when one has succeeded since."""
    puback_latency: Latencies = field(default_factory=Latencies)
    receipt_latency: Latencies = field(default_factory=Latencies)
    answer_latency: Latencies = field(default_factory=Latencies)

    @property
    def unacknowledged(self) -> int:
        return self.sent - self.pubacks - self.answered - self.refused
