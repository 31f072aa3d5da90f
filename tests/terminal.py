"""A real pseudo-terminal of 80 columns, in which a program runs or to which a test writes."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

COLUMNS = 80
_CONTROLS = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """What was written to a terminal."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self.file: TextIO = os.fdopen(slave, "w")
        """The terminal, for the program."""
        self._written = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is closed
            while data := os.read(self._master, 65_536):
                self._written += data

    @property
    def text(self) -> str:
        """All that was written, without control sequences."""
        return _CONTROLS.sub(b"", self._written).decode()

    @property
    def lines(self) -> list[str]:
        """The same by lines; a line that was replaced by another one is there too."""
        return re.split(r"[\r\n]+", self.text)

    def close(self) -> None:
        """Wait for the rest of the output."""
        self.file.close()
        self._reader.join(10)
        os.close(self._master)


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal that is closed on exit; its text can be read after that."""
    made = Terminal()
    try:
        yield made
    finally:
        made.close()


def run(argv: Sequence[str], env: Mapping[str, str]) -> tuple[subprocess.CompletedProcess[str], Terminal]:
    """Run a program whose stderr is a terminal, and whose stdout is a pipe."""
    with terminal() as shown:
        result = subprocess.run(
            argv, env=_plain(env), stdout=subprocess.PIPE, stderr=shown.file, text=True, timeout=120, check=False
        )
    return result, shown


def start(argv: Sequence[str], env: Mapping[str, str], shown: Terminal) -> "subprocess.Popen[bytes]":
    """Start a program with this terminal."""
    return subprocess.Popen(argv, env=_plain(env), stdin=subprocess.DEVNULL, stdout=shown.file, stderr=shown.file)


def _plain(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of an ordinary terminal."""
    own = {name: value for name, value in env.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
    return {**own, "TERM": "xterm"}
