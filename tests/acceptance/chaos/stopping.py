"""Ctrl-C and SIGTERM: the first lets the cycle under way finish, the second abandons it without judging it."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


class Abandoned(Exception):
    """Asked twice to stop: what this cycle has published has not drained, so nothing can be said of it."""


class Stopping:
    """Whether somebody asked the run to stop. Servers do not hear of it: they are in sessions of their own."""

    def __init__(self) -> None:
        self.asked = False
        self._in_cycle = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals; everything that was started can still be ended in order."""
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, disposition in before.items():
                signal.signal(number, disposition)

    @contextlib.contextmanager
    def cycle(self) -> Iterator[None]:
        """Inside, a second signal raises `Abandoned`; elsewhere it changes nothing."""
        self._in_cycle = True
        try:
            yield
        finally:
            self._in_cycle = False

    def _signalled(self, *_: object) -> None:
        if self.asked and self._in_cycle:
            self._in_cycle = False
            raise Abandoned
        self.asked = True
        # Not print: the signal may have come in the middle of one.
        os.write(sys.stderr.fileno(), b"stopping after this cycle; once more to abandon it\n")
