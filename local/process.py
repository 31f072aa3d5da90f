"""A child process that does not outlive its parent.

The kernel sends it the stop signal when the parent has ended (`prctl(2)`, PR_SET_PDEATHSIG, set by setpriv), so that a
`kill -9` of the parent leaves no running server. Start processes from the main thread: the kernel monitors the thread.

A child holds a lock on its log file until it and all its own children, which have the log as their output, have ended.
So a start after a crash can wait for the servers of the previous one.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from bridge.errors import Misconfigured

_SERVICE_USER = ("nobody", "nogroup")
_ORPHAN_TIMEOUT_S = 60.0


class Process:
    """A server with its log file.

    `as_service` runs it as an unprivileged user if the parent is root, because PostgreSQL refuses root. It keeps
    CAP_DAC_OVERRIDE, so that it can work below a directory such as /root that only root may enter.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[object],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        as_service: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = [*confine(stop_signal, as_service), *map(str, argv)]
        self._env = dict(env) if env is not None else None
        self._stop_signal = stop_signal
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or before it was started."""
        return None if self._popen is None else self._popen.poll()

    def start(self) -> None:
        """Start it in a separate session, so that Ctrl-C reaches only the parent, which stops its children in order."""
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log.touch(mode=0o600)  # the broker's log contains client ids
        with self.log.open("ab") as log:
            _lock(log, self.log)
            self._log_start = self.log.stat().st_size
            self._popen = subprocess.Popen(  # noqa: S603
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process only, if it runs."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def stop(self, timeout_s: float = 30.0) -> int | None:
        """Send the stop signal, kill the process if it does not stop, and return its exit code."""
        if self._popen is None:
            return None
        self.send(self._stop_signal)
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Send SIGKILL and wait until the process has ended."""
        assert self._popen is not None
        self._popen.kill()
        return self._popen.wait()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Wait for a condition while it runs. Raises `RuntimeError` with the end of its log otherwise."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.running:
                raise RuntimeError(f"{self.name} ended with {self.exit_code}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is not ready after {timeout_s:.0f} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def log_tail(self, lines: int = 15) -> str:
        """The end of its output since the last start."""
        written = self.log.read_bytes()[self._log_start :]
        return "\n".join(written.decode(errors="replace").splitlines()[-lines:])


def wait_for_orphans(logs: Path) -> None:
    """Wait until no process of an earlier start writes to this directory of logs."""
    for path in logs.glob("*.log"):
        with path.open("ab") as log:
            _lock(log, path)


def _lock(log: BinaryIO, path: Path) -> None:
    """Wait for the log's lock. Raises `RuntimeError` when the process that holds it does not end."""
    deadline = time.monotonic() + _ORPHAN_TIMEOUT_S
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.monotonic() > deadline:
            raise RuntimeError(f"a server of an earlier start still runs and writes to {path}")
        time.sleep(0.02)


def confine(stop_signal: signal.Signals, as_service: bool) -> list[str]:
    """The command prefix that ends a child with its parent and, for root, runs it as an unprivileged user."""
    setpriv = shutil.which("setpriv", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    if setpriv is None:
        raise Misconfigured("setpriv (util-linux) is missing: the local platform needs Linux")
    prefix = [setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG")]
    if as_service and os.geteuid() == 0:
        user, group = _SERVICE_USER
        # access(2) heeds capabilities of a user other than root only with this bit; PostgreSQL's programs ask it.
        caps = ["--securebits", "+no_setuid_fixup", "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
        prefix += ["--reuid", user, "--regid", group, "--clear-groups", *caps]
    return [*prefix, "--"]


def give_to_service(path: Path) -> None:
    """Make the unprivileged user the owner of its server's directory, if this process is root."""
    if os.geteuid() == 0:
        shutil.chown(path, *_SERVICE_USER)
