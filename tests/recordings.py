"""The real recordings, which are no part of the project: found beside it, or the tests that need them are skipped."""

import os
from pathlib import Path

import pytest

_FOLDER = Path(os.environ.get("FLEET_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def recording(name: str) -> Path:
    """The path of a recording. Skips the test where it is absent."""
    path = _FOLDER / name
    if not path.exists():
        pytest.skip(f"the recording {name} is not here (FLEET_TEST_DATA names its folder)")
    return path
