"""Prometheus, its tools and the node exporter for the tests: programs that are there, or unpacked by `make test`."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from local.ports import free_port
from local.process import Process
from tests.grafana import MONITORING

_ROOT = Path(__file__).resolve().parents[1]
_UNPACKED = _ROOT / ".servers" / "monitoring" / "usr" / "bin"
_NOT_NAMES = (
    re.compile(r"\"[^\"]*\"|\{[^}]*\}|\[[^]]*\]"),  # strings, matchers, ranges
    re.compile(r"\b(?:by|on|without|group_left|group_right)\s*\([^)]*\)"),
    re.compile(r"\b(?:and|or|unless|offset\s+\w+)\b"),
    re.compile(r"\b[a-z_]+\s*(?=\()"),  # functions
)


def program(name: str) -> str:
    """The path of a program."""
    path = os.pathsep.join((os.environ.get("PATH", ""), str(_UNPACKED)))
    found = shutil.which(name, path=path)
    assert found, f"{name} is missing: `sh scripts/monitoring-servers .servers/monitoring` gets it, as `make test` does"
    return found


def run(name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a tool to its end."""
    command = [program(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def names(promql: str) -> set[str]:
    """The metrics that an expression reads."""
    for pattern in _NOT_NAMES:
        promql = pattern.sub(" ", promql)
    return set(re.findall(r"\b[A-Za-z_]\w+", promql))


def configuration(directory: Path, targets: Mapping[str, str], api_key: str) -> Path:
    """The shipped configuration and rules in `directory`, with other addresses and a short interval."""
    shipped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    shipped["global"] = dict.fromkeys(shipped["global"], "1s")
    del shipped["alerting"]
    key = directory / "key"
    key.write_text(api_key)
    for job in shipped["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(key)
    shutil.copy(MONITORING / "rules.yml", directory)
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(shipped))
    return path


class Prometheus:
    """A server with its data in `directory`."""

    def __init__(self, directory: Path, config: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = Process(
            "Prometheus",
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            directory / "prometheus.log",
        )

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.process.start()
        self.process.wait_until(self._ready)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **parameters: object) -> Any:
        """The `data` of an answer that has neither error nor warning."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params={k: str(v) for k, v in parameters.items()}, timeout=30)
        document = answer.json()
        assert document["status"] == "success", document
        assert not document.get("warnings"), document
        return document["data"]

    def values(self, promql: str) -> Iterator[float]:
        """The values of a query at this moment."""
        data = self.get("query", query=promql)
        results = [data] if data["resultType"] == "scalar" else data["result"]
        for result in results:
            value = result["value"] if isinstance(result, dict) else result
            yield float(value[1])
