"""Counters and gauges for Prometheus. Updated once per batch, not per reading, which would cost too much."""

import math
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, get_args

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.clock import Clock
from bridge.delivery import Kept, KeptWithWarnings, Outcome, kept_as
from bridge.errors import Reason, Rejected
from bridge.reading import WarningCode
from bridge.version import VERSION


def process_registry() -> CollectorRegistry:
    """Make a registry with the metrics of every process: Python's collectors and the running version."""
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    Info("fleet_build", "The running version.", registry=registry).info({"version": VERSION})
    return registry


def measure_clock(clock: Clock, registry: CollectorRegistry) -> None:
    """Add how far this machine's clock is ahead of the database's."""
    ahead = Gauge(
        "fleet_clock_ahead_seconds",
        "How far this machine's clock is ahead of the database's; NaN before the first comparison.",
        registry=registry,
    )
    ahead.set_function(lambda: math.nan if clock.ahead_s is None else clock.ahead_s)


def measure_rejects_not_kept(counts: Mapping[str, int], registry: CollectorRegistry) -> None:
    """Add the rejects beyond the quotas, which are counted and not kept; `counts` is by reason."""
    registry.register(_NotKept(counts))


class _NotKept(Collector):
    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        metric = CounterMetricFamily(
            "fleet_rejects_not_kept", "Rejects beyond the quotas: counted, not kept.", labels=["reason"]
        )
        for reason in get_args(Reason):  # a counter that begins with its first event shows no increase
            metric.add_metric([reason], self._counts.get(reason, 0))
        yield metric


class Written(NamedTuple):
    """Sums over the batches that were committed."""

    items: float
    batches: float
    seconds: float
    up_to: list[tuple[float, float]]
    """Upper bounds in seconds, the last one infinite, and how many batches took no longer."""


class IngestMetrics:
    """Metrics of a writer; one object for each `Ingest`, in the registry of its process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._readings = Counter("fleet_readings", "Items committed, by outcome.", ["outcome"], registry=registry)
        self._rejected = Counter(
            "fleet_rejected", "Rejected items committed, by reason.", ["reason"], registry=registry
        )
        self._seconds = Histogram(
            "fleet_batch_write_seconds",
            "Time from the first attempt to the commit of a batch.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        self._sizes = Histogram(
            "fleet_batch_readings",
            "Number of items in a committed batch.",
            buckets=(1, 10, 100, 500, 1000, 2500, 5000, 10000, 20000),
            registry=registry,
        )
        self._warnings = Counter(
            "fleet_warnings", "Warnings about stored readings, by code.", ["code"], registry=registry
        )
        self._unavailable = Counter(
            "fleet_store_unavailable",
            "Attempts to write that failed for another reason than the data.",
            registry=registry,
        )
        self._reject_alarms = Counter(
            "fleet_reject_alarms", "Minutes in which the share of rejected items was too high.", registry=registry
        )
        # A counter that begins with its first event shows no increase.
        for outcome in ("stored", "duplicate", "rejected"):
            self._readings.labels(outcome)
        for reason in get_args(Reason):
            self._rejected.labels(reason)
        for code in get_args(WarningCode):
            self._warnings.labels(code)

    def written(self, outcomes: Sequence[Outcome], seconds: float) -> int:
        """Count a committed batch. Returns how many of its items were rejected."""
        self._seconds.observe(seconds)
        self._sizes.observe(len(outcomes))
        stored = outcomes.count(Kept.STORED)
        self._readings.labels("stored").inc(stored)
        if stored == len(outcomes):
            return 0
        others = [outcome for outcome in outcomes if outcome is not Kept.STORED]
        self._warned(others)
        kept = Tally(map(kept_as, others))
        self._readings.labels("stored").inc(kept[Kept.STORED])
        self._readings.labels("duplicate").inc(kept[Kept.DUPLICATE])
        self._readings.labels("rejected").inc(kept[None])
        for reason, count in Tally(o.reason for o in others if isinstance(o, Rejected)).items():
            self._rejected.labels(reason).inc(count)
        return kept[None]

    def so_far(self) -> Written:
        """The sums since the start of the process."""
        samples = [sample for metric in self._seconds.collect() for sample in metric.samples]
        total = {sample.name: sample.value for sample in samples if "le" not in sample.labels}
        items = sum(s.value for m in self._readings.collect() for s in m.samples if s.name == "fleet_readings_total")
        return Written(
            items,
            total["fleet_batch_write_seconds_count"],
            total["fleet_batch_write_seconds_sum"],
            [(float(sample.labels["le"]), sample.value) for sample in samples if "le" in sample.labels],
        )

    def _warned(self, outcomes: Sequence[Outcome]) -> None:
        codes = Tally(w.code for o in outcomes if isinstance(o, KeptWithWarnings) for w in o.warnings)
        for code, count in codes.items():
            self._warnings.labels(code).inc(count)

    def reject_alarm(self) -> None:
        """Count an alarm: the share of rejected items is too high."""
        self._reject_alarms.inc()

    def unavailable(self) -> None:
        """Count a failed attempt to write."""
        self._unavailable.inc()
