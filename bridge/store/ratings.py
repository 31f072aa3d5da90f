"""The maximum energy of a device in one interval: more is stored, with the warning `implausible`. Pure.

The most common mistake of a new device is to send a counter as an interval: 4,711 kWh in a minute.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from bridge.contract import KINDS, Kind
from bridge.reading import FieldWarning, Reading


class Ratings:
    """Rated power and interval of every device: declared in the device register, else the defaults."""

    def __init__(self, default_interval_s: float) -> None:
        self._default_interval_s = default_interval_s
        self._declared: dict[str, dict[str, tuple[float, float]]] = {}
        self._limits: dict[str, dict[str, float]] = {}

    def declare(self, devices: Iterable[tuple[Any, ...]]) -> None:
        """Replace the declarations: kind, id, interval in seconds or None, and rated power in kW or None."""
        default_kw = {kind.name: kind.rated_kw for kind in KINDS}
        self._declared = {name: {} for name in default_kw}
        for kind, id_, interval_s, rated_kw in devices:
            if kind in default_kw:
                rating = rated_kw or default_kw[kind], interval_s or self._default_interval_s
                self._declared[kind][id_] = rating
        self._limits = {
            kind: {id_: _kwh(*rating) for id_, rating in declared.items()} for kind, declared in self._declared.items()
        }

    def implausible(self, kind: Kind, readings: Sequence[Reading]) -> list[Reading]:
        """The readings of the kind whose interval has more energy than the device's rated power allows."""
        if kind.interval is None:
            return []
        found: list[Reading] = []
        shapes = {type(reading) for reading in readings}
        for shape in shapes:
            if kind.interval in shape.measures:
                own = readings if len(shapes) == 1 else [r for r in readings if type(r) is shape]
                found += self._implausible(kind, shape.measures.index(kind.interval) + 2, own)
        return found

    def _implausible(self, kind: Kind, at: int, readings: Sequence[Reading]) -> list[Reading]:
        """The same for readings of one class, whose energy is at index `at`."""
        limit = _kwh(kind.rated_kw, self._default_interval_s)
        limits = self._limits.get(kind.name)
        if not limits:
            return [r for r in readings if not -limit <= r[at] <= limit]
        return [r for r in readings if abs(r[at]) > limits.get(r[0], limit)]

    def warning(self, reading: Reading) -> FieldWarning:
        """The warning about an implausible reading."""
        interval = reading.kind.interval
        assert interval is not None
        kwh = getattr(reading, interval.column)
        rating = self._declared.get(reading.kind.name, {}).get(reading.device)
        rated_kw, interval_s = rating or (reading.kind.rated_kw, self._default_interval_s)
        detail = (
            f"{kwh:g} kWh in {interval_s:g} s is {abs(kwh) * 3600 / interval_s:,.6g} kW, more than the rated "
            f"{rated_kw:g} kW; send a counter as {_registers(reading.kind)}"
        )
        return FieldWarning("implausible", interval.name, detail)


def _kwh(power_kw: float, interval_s: float) -> float:
    return power_kw * interval_s / 3600


def _registers(kind: Kind) -> str:
    return " or ".join(measure.name for measure in kind.of_sort("register"))
