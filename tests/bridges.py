"""A bridge to test: as a separate process, or in the test's event loop, which is faster."""

import asyncio
import contextlib
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import ClassVar

from prometheus_client.parser import text_string_to_metric_families

import bridge
from bridge.service import Bridge
from bridge.settings.bridge import BridgeSettings
from bridge.settings.mqtt import MqttSettings
from local.ports import free_port
from local.process import Process
from tests.until import until


class Health:
    """The HTTP port of a bridge for health and metrics."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 when there is no response."""
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    async def ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200

    async def metric(self, name: str, **labels: str) -> float:
        """The value of one sample, by its full name."""
        _, text = await self.get("/metrics")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0


def bridge_settings(mqtt_url: str, database_url: str, **others: object) -> tuple[BridgeSettings, MqttSettings]:
    """Settings for a bridge on a free port, and of its source."""
    fields = {"bridge_mqtt_url": mqtt_url, "database_url": database_url, "bridge_http_port": free_port(), **others}
    return BridgeSettings.model_validate(fields), MqttSettings.model_validate(fields)


@contextlib.asynccontextmanager
async def serving(mqtt_url: str, database_url: str, **others: object) -> AsyncIterator[Health]:
    """A ready bridge in this event loop; stopped on exit as by SIGTERM."""
    settings, source = bridge_settings(mqtt_url, database_url, **others)
    async with in_this_loop(Bridge(settings, source).run, settings.bridge_http_port) as health:
        yield health


@contextlib.asynccontextmanager
async def in_this_loop(
    run: Callable[[asyncio.Event], Coroutine[None, None, None]], port: object
) -> AsyncIterator[Health]:
    """A program that runs until its event is set, and is ready; stopped on exit as by SIGTERM."""
    health, stop = Health(int(str(port))), asyncio.Event()
    running = asyncio.create_task(run(stop))
    try:
        await until(lambda: running.done() or health.ready())
        yield health
    finally:
        stop.set()
        await running


class ServingProcess(Health):
    """A program as a separate process that can be killed and restarted; `http_port` is the setting of its port."""

    def __init__(
        self, name: str, argv: Sequence[str], directory: Path, http_port: str, port: int, **fields: object
    ) -> None:
        super().__init__(port)
        env = environment(**{http_port: port, **fields})
        self.process = Process(name, [sys.executable, "-m", *argv], directory / f"{name}-{port}.log", env=env)

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self.process.start()
        await until(lambda: self._ended() or self.ready())

    def _ended(self) -> bool:
        if not self.process.running:
            ended = f"the {self.process.name} ended with {self.process.exit_code}"
            raise AssertionError(f"{ended}:\n{self.process.log_tail()}")
        return False

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send(number)
        await until(lambda: not self.process.running)
        assert self.process.exit_code is not None
        return self.process.exit_code


class BridgeProcess(ServingProcess):
    """A bridge, `python -m bridge run`."""

    program: ClassVar[Sequence[str]] = ("bridge",)
    """The module, with its arguments, that ends up in the bridge."""

    def __init__(self, directory: Path, mqtt_url: str, database_url: str, **others: object) -> None:
        fields = {"bridge_mqtt_url": mqtt_url, "database_url": database_url, **others}
        super().__init__("bridge", [*self.program, "run"], directory, "bridge_http_port", free_port(), **fields)


@contextlib.asynccontextmanager
async def bridge_process(
    directory: Path, mqtt_url: str, database_url: str, **others: object
) -> AsyncIterator[BridgeProcess]:
    """A ready bridge process; killed on exit if it still runs."""
    process = BridgeProcess(directory, mqtt_url, database_url, **others)
    try:
        await process.start()
        yield process
    finally:
        if process.process.running:
            process.process.kill()


def environment(**fields: object) -> dict[str, str]:
    """The environment of a command of the project with these settings and no other FLEET_ settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    root = str(Path(bridge.__file__).parents[1])
    return {**inherited, "PYTHONPATH": root, **{f"FLEET_{name.upper()}": str(value) for name, value in fields.items()}}
