"""One of the project's own programs as a child process, ready when its /readyz answers 200."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.process import Process

_ROOT = Path(__file__).resolve().parent.parent
# Without -P a folder `api` of the working directory would run instead of ours.
_PYTHON = (sys.executable, "-P", "-m")


class Service:
    """`python -m <module> ...` that serves health and metrics on a loopback port."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = program(name, argv, log, env)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.process.start()
        self.process.wait_until(self.ready, timeout_s=60)

    def stop(self) -> None:
        """Let it finish its work, then stop."""
        self.process.stop()

    def ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            self.get("/readyz")
        except OSError:
            return False
        return True

    def get(self, path: str, api_key: str | None = None) -> str:
        """The body of a GET. Raises `OSError` when there is no response, or a status other than 2xx."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        request = urllib.request.Request(self.url + path, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            body: bytes = response.read()
        return body.decode()


def program(name: str, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> Process:
    """A long-running `python -m ...` with these settings added to the environment of this process."""
    return Process(name, [*_PYTHON, *argv], log, env=_environment(env))


def run_once(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Run `python -m ...` to its end and return its output. Raises `RuntimeError` with its error output on failure."""
    command = [*_PYTHON, *argv]
    result = subprocess.run(command, env=_environment(env), capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise RuntimeError(f"python -m {' '.join(argv)} failed:\n{result.stderr.strip()}")
    return result.stdout.strip()


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process with `env` added; the packages are found from any working directory."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **env}
