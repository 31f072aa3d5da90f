"""The HTTP servers of the benchmark: the API and its references."""

import contextlib
import http.client
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping

import asyncpg
import psutil

from api import keys
from local.ports import free_port, is_open
from local.process import Process
from local.service import Service
from tests.bench.machine import Db, Machine


class RunningApi(Service):
    """`python -m api run` with a key with all rights."""

    def __init__(self, machine: Machine, database_url: str, key: str, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self.key = key
        env = {"FLEET_DATABASE_URL": machine.as_login(database_url, "api"), "FLEET_HTTP_PORT": str(self.port)}
        env |= settings
        super().__init__("api", ["api", "run"], machine.directory / f"api{self.port}.log", env, self.port)

    def cpu_s(self) -> float:
        """User and system time since the start."""
        return cpu_s(self.process)


class Refused(RuntimeError):
    """The API answered 422: it does not answer this request."""


class Client:
    """One connection to an API, kept open."""

    def __init__(self, running: RunningApi) -> None:
        self._key = running.key
        self._connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)

    async def get(self, path: str) -> bytes:
        """The body of a response. Raises `Refused` for status 422, `RuntimeError` for any other than 200."""
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {self._key}"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status == 422:
            raise Refused(json.loads(body)["detail"])
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body.decode()}")
        return body

    def close(self) -> None:
        self._connection.close()


def cpu_s(process: Process) -> float:
    """User and system time of a process since its start."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


@contextlib.asynccontextmanager
async def api(
    machine: Machine, database_url: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[RunningApi]:
    """An API on this database, ready, with the default settings or these."""
    db: Db = await asyncpg.connect(database_url)
    try:
        async with db.transaction():
            _, key = await keys.create(db, "bench", keys.Grant(keys.DEFAULT_SCOPES))
    finally:
        await db.close()
    running = RunningApi(machine, database_url, key, settings or {})
    running.start()
    try:
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def bare(machine: Machine, kind: str) -> Iterator[tuple[int, Process]]:
    """A server that stores nothing, `route` or `canned`: its port and process."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.bench.bare", kind, str(port)]
    process = Process(kind, argv, machine.directory / f"{kind}{port}.log")
    process.start()
    try:
        process.wait_until(lambda: is_open(port))
        yield port, process
    finally:
        process.stop()
