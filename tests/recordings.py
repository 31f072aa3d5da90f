"""The public recordings, which are not part of the project; tests that need them are skipped without them."""

import os
from pathlib import Path

import pytest

from bridge.settings.development import SuiteSettings

_FOLDER = SuiteSettings.read(os.environ).test_data or Path(__file__).resolve().parents[2] / "shared" / "data"


def recording(name: str) -> Path:
    """The path of a recording. Skips the test where it is absent."""
    path = _FOLDER / name
    if not path.exists():
        pytest.skip(f"the recording {name} is not here (FLEET_TEST_DATA names its folder)")
    return path
