"""What a writer tells about its recent work."""

import math

import pytest
from prometheus_client import CollectorRegistry

from bridge.clock import Clock
from bridge.delivery import Kept
from bridge.errors import Rejected
from bridge.ingest import Ingest
from bridge.metrics import IngestMetrics
from bridge.store.postgres import PostgresStore
from bridge.writer_status import WriterStatus, quantile

BOUNDS = (1.0, 2.0, math.inf)


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.99, (0, 0, 0), None),
        (0.5, (10, 10, 10), 0.5),
        (0.5, (0, 10, 10), 1.5),
        (0.99, (90, 100, 100), 1.9),
        (0.99, (0, 0, 10), 2.0),
        (0.5, (5, 5, 10), 1.0),
    ],
)
def test_quantile_is_estimated_between_the_bounds(
    share: float, counts: tuple[float, ...], expected: float | None
) -> None:
    found = quantile(share, list(zip(BOUNDS, counts, strict=True)))
    assert found == (None if expected is None else pytest.approx(expected))


def test_what_was_written_before_the_begin_is_not_recent() -> None:
    metrics = IngestMetrics(CollectorRegistry())
    status = WriterStatus(metrics)
    store = PostgresStore("postgresql://nowhere/none")  # which is not asked
    ingest = Ingest(store, Clock(30), batch_size=1, batch_age_s=1, capacity=1, metrics=metrics)
    metrics.written([Kept.STORED], 0.02)
    status.begin()
    assert status.look(ingest, None).figures["readings_per_s"] == 0
    metrics.written([Kept.STORED], 0.02)
    assert (status.look(ingest, None).figures["readings_per_s"] or 0) > 0


def test_sums_of_all_outcomes_and_batches() -> None:
    metrics = IngestMetrics(CollectorRegistry())
    metrics.written([Kept.STORED, Kept.DUPLICATE, Rejected("not_json", "", b"")], 0.02)
    metrics.written([Kept.STORED], 0.5)
    written = metrics.so_far()
    assert (written.items, written.batches) == (4, 2)
    assert written.seconds == pytest.approx(0.52)
    up_to = dict(written.up_to)
    assert (up_to[0.01], up_to[0.025], up_to[0.5], up_to[math.inf]) == (0, 1, 2, 2)
