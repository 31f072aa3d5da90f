"""A running API process and the connections of the tests to it."""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from local.ports import free_port
from local.process import Process
from tests.until import wait_until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass
class Api:
    """A running API process."""

    url: str
    process: Process
    env: dict[str, str]

    @property
    def port(self) -> int:
        return int(self.env["FLEET_HTTP_PORT"])

    @property
    def log(self) -> str:
        """The log of the process."""
        return self.process.log.read_text()

    def client(self, token: str | None = None, **options: Any) -> httpx.AsyncClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, **options)

    def socket(self) -> socket.socket:
        """A raw connection, for requests that no regular client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def wait_until(self, path: str) -> None:
        """Wait until `path` answers with 200."""
        wait_until(lambda: self._answers(path), f"{path} answers with 200; the log is {self.process.log}")

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, verify=False).status_code == 200
        except httpx.TransportError:
            assert self.process.running, self.log
            return False


def launch(database_url: str, log: Path, settings: Mapping[str, object], program: Sequence[str] = ("api",)) -> Api:
    """Start an API process on a free port and wait until it is ready.

    `program` is another module that ends up in it, with its arguments.
    """
    port = free_port()
    env = {"FLEET_DATABASE_URL": database_url, "FLEET_HTTP_PORT": str(port)}
    env |= {f"FLEET_{name.upper()}": str(value) for name, value in settings.items()}
    process = Process("api", [sys.executable, "-m", *program, "run"], log, env={**os.environ, **env})
    process.start()
    api = Api(f"{'https' if 'tls_cert_file' in settings else 'http'}://127.0.0.1:{port}", process, env)
    api.wait_until("/readyz")
    return api


def assert_problem(answer: httpx.Response, status: int, about: str = "") -> dict[str, Any]:
    """Check that the response is a problem with this status and detail; return its document, empty after HEAD."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if answer.request.method == "HEAD":
        assert answer.content == b""
        return {}
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["title"]
    assert about in document["detail"], document["detail"]
    assert "Traceback" not in answer.text
    return document


def different(one: Any, other: Any) -> dict[str, Any]:
    """The figures that two answers have different, means by more than 1e-12."""
    if (mean := other.get("avgBatteryTemp")) is not None:
        other = other | {"avgBatteryTemp": pytest.approx(mean, rel=1e-12)}
    return {key: (one[key], other[key]) for key in other if one[key] != other[key]}
