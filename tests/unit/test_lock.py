"""The lock files pin every dependency of pyproject.toml by hash, and contain no package index."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCKS = {
    "requirements.lock": [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)],
    "requirements-service.lock": [
        *PROJECT["dependencies"],
        *EXTRAS["simulator"],
        *EXTRAS["provision"],
        *EXTRAS["nats"],
        *EXTRAS["kafka"],
    ],
}


def pinned(lock: str) -> dict[str, str]:
    lines = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_satisfies_what_pyproject_asks_for(lock: str) -> None:
    versions = pinned(lock)
    for requirement in map(Requirement, LOCKS[lock]):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: run `make lock`"
        assert requirement.specifier.contains(version), f"{requirement} is locked to {version}: run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_place_and_has_a_hash_for_each_version(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert " @ " not in text
    assert not re.search(r"^--|^\s*#.*\s/\w", text, re.MULTILINE)
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pinned(lock))
    assert all("--hash=sha256:" in entry for entry in entries)


def test_service_lock_has_the_versions_that_the_tests_run_with() -> None:
    assert pinned("requirements-service.lock").items() <= pinned("requirements.lock").items()
