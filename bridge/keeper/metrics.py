"""What the keeper tells about itself and its duties."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bridge.contract import KINDS, Kind
from bridge.keeper.port import Duty, Figure


class KeeperMetrics:
    """Gauges and counters of one keeper; `lag_s` is asked when they are read."""

    def __init__(self, registry: CollectorRegistry, duties: Sequence[Duty], lag_s: Callable[[Duty], float]) -> None:
        self.leads = False
        """Whether this keeper works; in standby the figures are 0."""
        leader = Gauge("fleet_keeper_leader", "1 for the keeper that works, 0 in standby.", registry=registry)
        leader.set_function(lambda: float(self.leads))
        self._duties = duties
        self._seconds = Histogram(
            "fleet_keeper_duty_seconds",
            "Duration of a run of the duty, whether it succeeded or not.",
            ["duty"],
            buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300),
            registry=registry,
        )
        self._failures = Counter(
            "fleet_keeper_duty_failures", "Runs of the duty that failed.", ["duty"], registry=registry
        )
        lag = Gauge(
            "fleet_keeper_duty_lag_seconds",
            "For how long the duty has been due without a successful run.",
            ["duty"],
            registry=registry,
        )
        for duty in duties:
            self._seconds.labels(duty.name)
            self._failures.labels(duty.name)
            lag.labels(duty.name).set_function(lambda duty=duty: lag_s(duty))  # type: ignore[misc]
            for figure in duty.figures:
                gauge = Gauge(figure.name, figure.description, ["kind"], registry=registry)
                for kind in KINDS:
                    gauge.labels(kind.name).set_function(lambda figure=figure, kind=kind: self._value(figure, kind))  # type: ignore[misc]

    def _value(self, figure: Figure, kind: Kind) -> float:
        return figure.value(kind) if self.leads else 0.0

    def details(self) -> dict[str, object]:
        """The figures of the duties for /readyz: by duty, field and kind."""
        return {
            duty.name: {f.field: {kind.name: self._value(f, kind) for kind in KINDS} for f in duty.figures}
            for duty in self._duties
            if duty.figures
        }

    @contextlib.contextmanager
    def running(self, duty: Duty) -> Iterator[None]:
        """Measure a run; an exception is a failure, and is passed on."""
        began = time.monotonic()
        try:
            yield
        except Exception:
            self._failures.labels(duty.name).inc()
            raise
        finally:
            self._seconds.labels(duty.name).observe(time.monotonic() - began)
