"""How far a long command is: a bar on stderr, if that is a terminal. Nothing is shown elsewhere, such as in a log."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], object]
"""Is told how many items are done in addition."""


class Stages(Protocol):
    """A command has one stage or several, one after the other."""

    def stage(self, what: str, total: int) -> Advance:
        """Begin a stage of so many items."""
        ...


class Silent:
    """Shows nothing."""

    def stage(self, what: str, total: int) -> Advance:  # noqa: ARG002  # the protocol's
        return lambda _: None


class _Bars:
    """Shows the current stage."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def stage(self, what: str, total: int) -> Advance:
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        return functools.partial(self._bars.advance, self._bars.add_task(what, total=total))


@contextlib.contextmanager
def on_terminal() -> Iterator[Stages]:
    """Show the stages of the command in this block; the bar is gone after it."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
    # What is printed meanwhile has to be above the bar, unless it goes elsewhere.
    redirected = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=redirected) as bars:
        yield _Bars(bars)
