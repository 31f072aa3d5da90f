"""The wheel: with each extra it has all that its programs need, and they run from any directory.

Each extra is installed into an empty environment of its own, from the package index, in the locked versions.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest
import typer

import api.cli
import bridge.cli
import local.cli
import mosquitto.cli
import simulator.cli
from bridge.settings.development import SuiteSettings
from bridge.version import VERSION
from local.ports import Ports, free_port
from tests.until import wait_until

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROGRAMS = {
    "fleet-bridge": bridge.cli.app,
    "fleet-api": api.cli.app,
    "fleet-simulator": simulator.cli.app,
    "fleet-provision": mosquitto.cli.app,
    "fleet-local": local.cli.app,
}
PACKAGE = {script: target.split(".")[0] for script, target in PROJECT["scripts"].items()}
ADDED = {
    "": ["fleet-bridge", "fleet-api"],
    "simulator": ["fleet-simulator"],
    "provision": ["fleet-provision"],
    "local": ["fleet-local"],
}
"""The programs that each extra is for."""
EXTRAS = {
    "": ADDED[""],
    "simulator": [*ADDED[""], *ADDED["simulator"]],
    "provision": [*ADDED[""], *ADDED["provision"]],
    "local": [*PROGRAMS],
}
"""All programs that run with each extra."""

_IMPORT_ALL = """
import importlib, pkgutil, sys
for package in map(importlib.import_module, sys.argv[1:]):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
"""
_NO_INDEX = re.compile(r"No matching distribution found for setuptools|Failed to establish a new connection")


class Installed(NamedTuple):
    """An environment with the wheel and one extra in it."""

    extra: str
    bin: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs in a directory that has nothing to do with the project."""
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.elsewhere,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )


def environment() -> Mapping[str, str]:
    """Ours without the checkout, which would lend its modules."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def pip(*arguments: object) -> None:
    """Run pip. Skips the test without an index, unless FLEET_TEST_INDEX=required."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if (
        result.returncode
        and _NO_INDEX.search(result.stderr)
        and SuiteSettings.read(os.environ).test_index == "optional"
    ):
        pytest.skip("no package index can be reached")
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy: setuptools leaves files beside the sources."""
    directory = tmp_path_factory.mktemp("wheel")
    for package in set(PACKAGE.values()):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", directory / "dist", directory)
    (built,) = (directory / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module", params=EXTRAS, ids=lambda extra: extra or "base")
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel with one extra in an environment that was empty."""
    extra: str = request.param
    directory = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True)
    constraints = directory / "constraints"
    constraints.write_text("\n".join(re.findall(r"^\S+==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)))
    requirement = f"fleet-energy-bridge[{extra}] @ {wheel.as_uri()}"
    options = ["--quiet", "--no-compile", "--only-binary=:all:", "--constraint", constraints]
    pip("--python", directory / "venv" / "bin" / "python", "install", *options, requirement)
    (directory / "elsewhere").mkdir()
    return Installed(extra, directory / "venv" / "bin", directory / "elsewhere")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """A command of Typer and all its subcommands, each as the words after the program's name."""
    yield path
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from commands(subcommand, (*path, name))


def test_programs_have_subcommands() -> None:
    """What the test of their help asks for."""
    words = {program: list(commands(typer.main.get_command(app))) for program, app in PROGRAMS.items()}
    assert ("rejected", "replay") in words["fleet-bridge"]
    assert ("device", "add") in words["fleet-provision"]
    assert all(len(found) > 3 for found in words.values())


def test_every_command_of_every_program_has_its_help(installed: Installed) -> None:
    for program in ADDED[installed.extra]:
        for words in commands(typer.main.get_command(PROGRAMS[program])):
            answer = installed.run(program, *words, "--help")
            assert (answer.returncode, answer.stderr) == (0, "")
            assert f"Usage: {' '.join((program, *words))}" in answer.stdout


def test_every_program_has_the_version_of_the_package(installed: Installed, wheel: Path) -> None:
    assert wheel.name.split("-")[1] == VERSION
    for program in PROGRAMS:
        assert installed.run(program, "--version").stdout == f"{VERSION}\n"


def test_every_module_finds_what_it_imports(installed: Installed) -> None:
    packages = [PACKAGE[program] for program in EXTRAS[installed.extra]]
    answer = installed.run("python", "-P", "-c", _IMPORT_ALL, *packages)
    assert answer.returncode == 0, answer.stderr


def lacking(extra: str) -> list[str]:
    """The programs whose extra has a requirement that neither this one nor the base has."""

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}

    extras = PROJECT["optional-dependencies"]
    there = names(PROJECT["dependencies"]) | names(extras.get(extra, []))
    found = [program for other in ADDED if other and names(extras[other]) - there for program in ADDED[other]]
    assert "fleet-local" in found
    return found


@pytest.mark.parametrize("installed", ["", "simulator"], indirect=True)
def test_program_without_its_extra_says_what_to_install(installed: Installed) -> None:
    for program in lacking(installed.extra):
        answer = installed.run(program, "--help")
        assert answer.returncode == 2
        assert re.fullmatch(r"\S+ is not installed: install fleet-energy-bridge\[\w+\]\n", answer.stderr)


@pytest.mark.parametrize("installed", ["provision"], indirect=True)
def test_installed_provisioning_lets_a_device_in(installed: Installed) -> None:
    made = installed.run("fleet-provision", "ca", "init", "broker")
    added = installed.run("fleet-provision", "device", "add", "EV_1", "--kind", "vehicle", "--dir", "broker")
    assert (made.returncode, added.returncode) == (0, 0), made.stderr + added.stderr
    row = json.loads(installed.run("fleet-provision", "device", "list", "--dir", "broker").stdout)
    assert row["name"] == "vehicle/EV_1"


@pytest.mark.parametrize("installed", ["local"], indirect=True)
def test_installed_platform_runs_in_a_directory_with_packages_of_our_names(installed: Installed) -> None:
    for package in PACKAGE.values():
        (installed.elsewhere / package).mkdir()
        (installed.elsewhere / package / "__init__.py").write_text("raise SystemExit('not ours')")
    ports = {f"FLEET_{field.name.upper()}_PORT": str(free_port()) for field in fields(Ports)}
    log = installed.elsewhere / "log"
    with log.open("wb") as output:
        platform = subprocess.Popen(
            [installed.bin / "fleet-local"],
            cwd=installed.elsewhere,
            env={**environment(), **ports, "FLEET_SIM_VEHICLES": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        ready = installed.elsewhere / ".local" / "env"
        wait_until(lambda: ready.exists() or platform.poll() is not None, "ready", 90)
        assert ready.exists(), log.read_text()
    finally:
        platform.terminate()
        assert platform.wait(90) == 0, log.read_text()


def test_wheel_has_every_file_of_its_packages_and_the_charts(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGE.values()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    shipped = {name for name in ZipFile(wheel).namelist() if not name.startswith("fleet_energy_bridge-")}
    vendor = {str(file.relative_to(ROOT)) for file in (ROOT / "api" / "page" / "vendor").iterdir()}
    assert {Path(name).name for name in vendor} >= {"uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE.txt"}
    assert shipped == set(tracked.stdout.split()) | vendor
    assert {f"{package}/py.typed" for package in PACKAGE.values()} <= shipped
