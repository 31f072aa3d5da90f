"""`python -m local` as its user starts it: the platform in a process, its file of addresses, its output."""

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil

from local.ports import Ports, free_port
from tests.until import wait_until

PORTS = tuple(f"FLEET_{field.name.upper()}_PORT" for field in dataclasses.fields(Ports))


class Up:
    """`python -m local` in a separate directory, on free ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory.parent / "output"
        self._environment = {name: str(free_port()) for name in PORTS}
        self._environment |= {"FLEET_LOCAL_DIR": str(directory), "FLEET_SIM_VEHICLES": "0"}
        self._popen: subprocess.Popen[bytes] | None = None

    def run(self, *options: str, **environment: str | None) -> "subprocess.Popen[bytes]":
        """Start it with these options and changes to its environment (None: unset); its output goes to a file."""
        changed = {**os.environ, **self._environment, **environment}
        env = {name: value for name, value in changed.items() if value is not None}
        with self.output.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "local", *options], env=env, stdout=output, stderr=output
            )
        return self._popen

    def until_ready(self, timeout_s: float = 60.0) -> dict[str, str]:
        """Wait for its file of addresses, and return the content."""
        wait_until(lambda: self.env.exists() or not self.runs, "ready", timeout_s)
        assert self.env.exists(), self.output.read_text()
        return dict(word.split("=", 1) for word in shlex.split(self.env.read_text()))

    def introduction(self) -> str:
        """Its output when it is ready."""
        wait_until(lambda: "Ctrl-C stops the platform" in self.output.read_text(), "the introduction is complete")
        return self.output.read_text()

    def port(self, name: str) -> str:
        """A port that is configured for it."""
        return self._environment[f"FLEET_{name}_PORT"]

    @property
    def env(self) -> Path:
        return self.directory / "env"

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send the signal and return its exit code."""
        assert self._popen is not None
        self._popen.send_signal(number)
        return self._popen.wait(90)

    def servers(self) -> list[psutil.Process]:
        """All its child processes."""
        assert self._popen is not None
        return psutil.Process(self._popen.pid).children(recursive=True)

    @property
    def runs(self) -> bool:
        return self._popen is not None and self._popen.poll() is None


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def shell(command: str, env: Path, timeout_s: float = 30.0) -> str:
    """Run a command in a shell that has loaded the file of addresses."""
    script = f". {shlex.quote(str(env))}; {command}"
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=timeout_s, check=True).stdout


def killed(up: Up, command: list[str]) -> bool:
    """Kill a program, if it runs."""
    with contextlib.suppress(psutil.Error):
        for program in up.servers():
            if program.status() != psutil.STATUS_ZOMBIE and program.cmdline()[-2:] == command:
                program.kill()
                return True
    return False


def ready(port: str) -> bool:
    """Whether the program on this port says that it is ready."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except httpx.TransportError:
        return False
