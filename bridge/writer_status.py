"""The state of a process that stores readings, of which its metrics have the sums since its start."""

import time
from itertools import pairwise

from bridge.ingest import Ingest
from bridge.metrics import IngestMetrics, Written
from bridge.status import Status, StatusColumn


class WriterStatus:
    """Tells what was written since it was last asked. One instance lives as long as the process."""

    def __init__(self, metrics: IngestMetrics) -> None:
        self._metrics = metrics
        self.begin()

    def begin(self) -> None:
        """Nothing is written yet: the next look tells what is written from now on."""
        self._before, self._looked_at = self._metrics.so_far(), time.monotonic()

    def look(self, ingest: Ingest, problem: str | None) -> Status:
        """The state of the active writer."""
        now, so_far = time.monotonic(), self._metrics.so_far()
        recent, seconds = _difference(so_far, self._before), max(now - self._looked_at, 1e-3)
        self._before, self._looked_at = so_far, now
        figures: dict[StatusColumn, float | None] = {
            "readings_per_s": recent.items / seconds,
            "commit_mean_s": recent.seconds / recent.batches if recent.batches else None,
            "commit_p99_s": quantile(0.99, recent.up_to),
            "waiting": ingest.outstanding,
            "capacity": ingest.capacity,
            "lag_s": ingest.stalled_s,
        }
        return Status(active=True, problem=problem, figures=figures)


def _difference(now: Written, before: Written) -> Written:
    up_to = [(bound, count - earlier) for (bound, count), (_, earlier) in zip(now.up_to, before.up_to, strict=True)]
    return Written(now.items - before.items, now.batches - before.batches, now.seconds - before.seconds, up_to)


def quantile(share: float, up_to: list[tuple[float, float]]) -> float | None:
    """The value below which this share lies, as Prometheus estimates it; None of nothing.

    `up_to` has, by ascending upper bounds of which the last is infinite, how many values are not above each.
    """
    wanted = share * up_to[-1][1]
    if wanted == 0:
        return None
    for (least, below), (most, count) in pairwise([(0.0, 0.0), *up_to[:-1]]):
        if count >= wanted:
            return least + (most - least) * (wanted - below) / (count - below)
    return up_to[-2][0]
