"""The results of a run: stored as JSON, compared with the previous run, printed as a table."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

RESULTS = Path("bench-results")
_TENTH = 0.1


class Figure(NamedTuple):
    """One measured figure; `must` and `aim` are limits from above where `lower` is better."""

    key: str
    measure: str
    value: float
    must: float | None
    aim: float | None
    lower: bool = False
    unit: str = ""
    ceiling: str = ""
    """The rate of the load generator alone."""
    detail: str = ""
    """The two absolute figures of the ratio, and the range of the rounds."""

    def verdict(self) -> str:
        """Whether it reaches what it must and what it aims at."""
        if self.must is None or self.aim is None:
            return ""
        return "aim" if self._reaches(self.aim) else "must" if self._reaches(self.must) else "SHORT"

    def _reaches(self, limit: float) -> bool:
        return self.value <= limit if self.lower else self.value >= limit


def median_ratio(pairs: Sequence[tuple[float, float]]) -> tuple[float, str]:
    """The median over the rounds of first / second, and the rounds' own ratios as text."""
    ratios = sorted(a / b for a, b in pairs)
    return ratios[len(ratios) // 2], "rounds " + " ".join(f"{ratio:.2f}" for ratio in ratios)


def percentile(values: Iterable[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def earlier() -> dict[str, float]:
    """The newest earlier value of every figure."""
    found: dict[str, float] = {}
    for path in sorted(RESULTS.glob("*.json")):
        found |= {figure["key"]: figure["value"] for figure in json.loads(path.read_text())["figures"]}
    return found


def save(figures: Sequence[Figure], quick: bool) -> Path:
    """Store the run in the directory of the earlier ones."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    run = {
        "at": now.isoformat(timespec="seconds"),
        "commit": _commit(),
        "quick": quick,
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "load_average": os.getloadavg(),
        "figures": [figure._asdict() for figure in figures],
    }
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(run, indent=1) + "\n")
    return path


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def table(figures: Sequence[Figure], before: dict[str, float]) -> str:
    """A Markdown table, a row a figure."""
    head = ["", "measure", "figure", "must", "aim", "reaches", "load alone", "made of", "before"]
    rows = [_row(figure, before.get(figure.key)) for figure in figures]
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _row(figure: Figure, before: float | None) -> list[str]:
    limits = ["" if limit is None else f"{limit:g}" for limit in (figure.must, figure.aim)]
    value = f"{figure.value:.2f}{figure.unit}"
    return [
        figure.key,
        figure.measure,
        value,
        *limits,
        figure.verdict(),
        figure.ceiling,
        figure.detail,
        _change(figure, before),
    ]


def _change(figure: Figure, before: float | None) -> str:
    """The value of the previous run, and FELL where the result is worse by more than a tenth."""
    if before is None:
        return ""
    worse = figure.value > before * (1 + _TENTH) if figure.lower else figure.value < before * (1 - _TENTH)
    return f"{before:.2f}{' FELL' if worse else ''}"
