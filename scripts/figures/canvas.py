"""How the pictures are drawn: one style, files without dates, and the few shapes that they share."""

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from api.energy.curve import Segment
from api.energy.spans import Span
from scripts.figures.readings import HOUR, MINUTE, kw

AC, DC, KNOWN, MISSING, PERIOD, NOBODY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#e8eef4", "#9a9a9a"
_STYLE = {
    "svg.hashsalt": "fleet-energy-bridge",
    "svg.fonttype": "none",  # the reader's font: small files, and text that can be searched
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",  # also for readers in dark mode
}
Numbers = Mapping[str, float]


class Picture(NamedTuple):
    """A drawn example."""

    title: str
    size: tuple[float, float]
    """Width and height in inches of 72 points."""
    numbers: Callable[[], Numbers]
    """What the algebra answers, in kWh, degC, hours or as a ratio."""
    draw: Callable[[Figure], None]

    def svg(self) -> str:
        """The file; the same bytes each time with one version of the library. It contains the numbers as JSON."""
        with rc_context():
            rcdefaults()  # independent of the user's configuration
            rcParams.update(_STYLE)  # type: ignore[arg-type]  # the keys are Literals there
            figure = Figure(self.size, layout="constrained")
            FigureCanvasSVG(figure)
            self.draw(figure)
            file = io.StringIO()
            description = json.dumps(self.numbers())
            metadata = {"Title": self.title, "Description": description, "Date": None, "Creator": None}
            figure.savefig(file, format="svg", metadata=metadata)
        return _compact(file.getvalue())


def _compact(svg: str) -> str:
    """The file with coordinates of two decimals and without rotations by nothing."""
    head, end_of_head, body = svg.partition("</metadata>")
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub('"[^"]*"', lambda value: re.sub(r"(\.\d\d)\d+", r"\1", value[0]), body)
    return "".join(f"{line.rstrip()}\n" for line in (head + end_of_head + body).splitlines())


def clock(axes: Axes, start: int, end: int, step: int, midnight: int = 0) -> None:
    """Labels the time axis; `midnight` is the time of day at 0."""
    axes.set_xlim(start, end)
    ticks = range(start, end + 1, step)
    axes.set_xticks(ticks, [f"{(at + midnight) // HOUR:02d}:{(at + midnight) // MINUTE % 60:02d}" for at in ticks])


def without_scale(axes: Axes) -> None:
    """Only the time axis has a scale."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def power(axes: Axes, segments: Iterable[Segment], color: str, *, sign: int = 1, label: str | None = None) -> None:
    """Segments as areas: the height is the mean power in kW, so the area is the energy."""
    at, height = _steps(segments)
    axes.fill(at, [sign * each for each in height], facecolor=color, edgecolor="none", alpha=0.85, label=label)


def outline(axes: Axes, segments: Iterable[Segment], color: str, label: str | None = None) -> None:
    """Segments as `power` has them, by their outline."""
    axes.plot(*_steps(segments), color=color, linewidth=1.6, label=label)


def _steps(segments: Iterable[Segment]) -> tuple[list[int], list[float]]:
    """The corners of the mean power: times and kW. Adjacent segments of the same power are one step."""
    steps: list[tuple[int, int, float]] = []
    for segment in segments:
        start, end, level = segment.start, segment.end, kw(segment)
        if steps and steps[-1][1:] == (start, level):
            start = steps.pop()[0]
        steps.append((start, end, level))
    at = [each for start, end, _ in steps for each in (start, start, end, end)]
    return at, [height for _, _, level in steps for height in (0.0, level, level, 0.0)]


def band(
    axes: Axes, span: Span, bottom: float, height: float, color: str, text: str = "", *, hatched: bool = False
) -> None:
    """A span of time as a bar, with a text in its middle."""
    style = {"facecolor": color, "edgecolor": "white"}
    if hatched:
        style = {"facecolor": "white", "edgecolor": color, "hatch": "////"}
    axes.broken_barh([(span.start, span.end - span.start)], (bottom, height), **style)  # type: ignore[arg-type]
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if hatched else None
    middle = (span.start + span.end) / 2, bottom + height / 2
    axes.text(*middle, text, ha="center", va="center", color="black" if hatched else "white", bbox=background)


def shown(number: float) -> str:
    """A number as a picture has it."""
    return f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.1f}"
