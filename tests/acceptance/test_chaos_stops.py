"""Stopping a long fault run: it reports the evaluated cycles, evaluates no others and leaves no server running."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from simulator.ledger import MAGIC, PUBACK
from simulator.ledger_reader import ACK_BITS, read_ledger
from tests.acceptance.chaos.processes import ROOT
from tests.until import wait_until

_STOPPED = 128 + signal.SIGINT
_PATIENCE_S = 120.0
"""Timeout for the start of a whole stack on a busy machine."""


class Run:
    """A run of more cycles than the test waits for, in a separate directory."""

    def __init__(self, directory: Path, *options: str) -> None:
        # Not below pytest's: PostgreSQL, which is not root, must be able to enter it.
        self.directory = Path(tempfile.mkdtemp(prefix="chaos-stops-"))
        self.directory.chmod(0o755)
        self._output = directory / "output"
        always = ["--seed", "3", "--cycles", "1000", "--messages", "300", "--report", str(directory / "report.json")]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.acceptance.chaos", *always, *options],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.directory)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def says(self, words: str) -> None:
        """Wait until its output contains these words."""
        wait_until(lambda: words in self.output or self.process.poll() is not None, words, _PATIENCE_S)
        assert words in self.output, self.output

    def interrupt(self) -> None:
        """Send SIGINT to every process of the group, as a terminal does on Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> str:
        """Wait for its end and return its output; check that none of its processes is left."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.wait(_PATIENCE_S)
        wait_until(lambda: not any(process.is_running() for process in started), "every server is gone")
        self.directory.rmdir()
        return self.output


@contextmanager
def chaos(directory: Path, *options: str) -> Iterator[Run]:
    run = Run(directory, *options)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()


def acknowledged(directory: Path) -> bool:
    """Whether the broker has acknowledged something."""
    ledgers = [path for path in directory.glob("chaos-*/ledger") if path.stat().st_size > len(MAGIC)]
    return any(acks & ACK_BITS[PUBACK] for path in ledgers for acks in read_ledger(path).acks)


def test_run_asked_to_stop_finishes_its_cycle_and_reports(tmp_path: Path) -> None:
    with chaos(tmp_path, "--fault", "bridge-kill") as run:
        run.says("0 bridge-kill: ")
        run.process.terminate()
        output = run.end()
    assert run.process.returncode == _STOPPED, output
    assert "lost 0, doubled 0" in output
    assert "not judged" not in output


def test_cycle_that_is_abandoned_is_not_judged_and_nothing_undrained_is_called_lost(tmp_path: Path) -> None:
    # The bridge stays stopped, so the acknowledged messages cannot have been drained.
    with chaos(tmp_path, "--fault", "bridge-away", "--hold", "1000") as run:
        wait_until(lambda: acknowledged(run.directory), "the broker has acknowledged something", _PATIENCE_S)
        run.interrupt()
        run.says("once more to abandon it")
        run.interrupt()
        output = run.end()
    assert run.process.returncode == _STOPPED, output
    assert "cycle 0 was not judged" in output
    assert "lost 0, doubled 0" in output
