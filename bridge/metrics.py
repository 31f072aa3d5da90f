"""Counters and gauges for Prometheus. Updated once a batch, never once a reading."""

from collections import Counter as Tally
from collections.abc import Sequence
from typing import get_args

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
)

from bridge.delivery import Kept, KeptWithWarnings, Outcome, kept_as
from bridge.errors import Rejected
from bridge.reading import WarningCode
from bridge.version import VERSION


def process_registry() -> CollectorRegistry:
    """A registry with what each process tells about itself: Python's own collectors and the version that runs."""
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    Info("fleet_build", "The version that runs.", registry=registry).info({"version": VERSION})
    return registry


class IngestMetrics:
    """What a writer did; one object for each `Ingest`, in the registry of its process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._readings = Counter(
            "fleet_readings", "Items committed, by what became of them.", ["outcome"], registry=registry
        )
        self._rejected = Counter(
            "fleet_rejected", "Rejected items committed, by reason.", ["reason"], registry=registry
        )
        self._seconds = Histogram(
            "fleet_batch_write_seconds",
            "From the first attempt to the commit of a batch.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        self._sizes = Histogram(
            "fleet_batch_readings",
            "Items of a committed batch.",
            buckets=(1, 10, 100, 500, 1000, 2500, 5000, 10000, 20000),
            registry=registry,
        )
        self._warnings = Counter(
            "fleet_warnings", "Warnings about stored readings, by code.", ["code"], registry=registry
        )
        self._unavailable = Counter(
            "fleet_store_unavailable", "Attempts to write that failed through no fault of the data.", registry=registry
        )
        self._reject_alarms = Counter(
            "fleet_reject_alarms", "Minutes in which too large a share of the items was rejected.", registry=registry
        )
        for outcome in ("stored", "duplicate", "rejected"):
            self._readings.labels(outcome)
        for code in get_args(WarningCode):
            self._warnings.labels(code)

    def written(self, outcomes: Sequence[Outcome], seconds: float) -> int:
        """A batch was committed. Returns how many of its items were rejected."""
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

    def _warned(self, outcomes: Sequence[Outcome]) -> None:
        codes = Tally(w.code for o in outcomes if isinstance(o, KeptWithWarnings) for w in o.warnings)
        for code, count in codes.items():
            self._warnings.labels(code).inc(count)

    def reject_alarm(self) -> None:
        """More of what comes is rejected than a sound fleet sends."""
        self._reject_alarms.inc()

    def unavailable(self) -> None:
        """An attempt to write failed; it will be repeated or given up."""
        self._unavailable.inc()
