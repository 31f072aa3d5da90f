"""The processes of the platform under test, as the harness sees them."""

import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from local.mosquitto import Mosquitto
from local.ports import free_port
from local.process import Process, confine

ROOT = Path(__file__).parents[3]


class Stuck(Exception):
    """A process did what it must not do; the text says what."""


class Broker(Mosquitto):
    """The project's configuration, with figures every second and a queue that can be made short."""

    most_queued = 50_000_000

    def _adapted(self, conf: str) -> str:
        conf = super()._adapted(conf).replace("sys_interval 10", "sys_interval 1")
        return conf.replace("max_queued_messages 50000000", f"max_queued_messages {self.most_queued}")

    def limit_queue(self, most: int) -> None:
        """Drop what exceeds `most` messages from the next start on."""
        self.most_queued = most


def command(program: str, wrap: tuple[str, int] | None, subcommand: str = "run") -> list[object]:
    """Run a program, plain or wrapped by `crashing_bridge`."""
    crashing: list[object] = [] if wrap is None else ["tests.acceptance.chaos.crashing_bridge", *wrap]
    return [sys.executable, "-m", *crashing, program, subcommand]


class _Serving:
    """A process with health and metrics on a port of its own."""

    def __init__(self, name: str, argv: list[object], logs: Path, env: dict[str, str], setting: str) -> None:
        self.port = free_port()
        log, env = logs / f"{name.split()[0]}-{self.port}.log", {**env, setting: str(self.port)}
        self.process = Process(name, argv, log, env=env)
        self.process.start()

    def ready(self) -> bool:
        return self._get("/readyz")[0] == 200

    def metric(self, name: str) -> float:
        """A sample by its name and labels, as it is written; 0 when nobody answers."""
        for line in self._get("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""
        except OSError:
            return 0, ""


class Bridge(_Serving):
    """A bridge process, plain or wrapped by `crashing_bridge`."""

    def __init__(self, name: str, logs: Path, env: dict[str, str], wrap: tuple[str, int] | None) -> None:
        super().__init__(name, command("bridge", wrap), logs, env, "FLEET_BRIDGE_HTTP_PORT")


class Keeper(_Serving):
    """The keeper's process."""

    def __init__(self, logs: Path, env: dict[str, str]) -> None:
        super().__init__("keeper", [sys.executable, "-m", "bridge", "keep"], logs, env, "FLEET_KEEPER_HTTP_PORT")


class Relay(_Serving):
    """A relay process, plain or wrapped by `crashing_bridge`."""

    def __init__(self, logs: Path, env: dict[str, str], wrap: tuple[str, int] | None) -> None:
        super().__init__("relay", command("bridge", wrap, "relay"), logs, env, "FLEET_RELAY_HTTP_PORT")


class Publisher:
    """The publisher's process and its answers."""

    def __init__(self, url: str, api_url: str, api_key: str, options: Sequence[object]) -> None:
        module = ["-m", "tests.acceptance.chaos.publisher", "--url", url, "--api", api_url]
        self._process = subprocess.Popen(
            [*confine(signal.SIGKILL, as_service=False), sys.executable, *module, *map(str, options)],
            start_new_session=True,  # Ctrl-C reaches the harness only
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "FLEET_API_KEY": api_key},
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._answers.get(timeout=20) == "ready"

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answered(self, answer: str) -> bool:
        """Whether this answer has come. Raises `Stuck` when the publisher is gone."""
        while not self._answers.empty():
            if self._answers.get() == answer:
                return True
        if self._process.poll() is not None:
            raise Stuck(f"the publisher ended with {self._process.returncode}")
        return False

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line.strip())
