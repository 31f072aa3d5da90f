"""What the project's tests read."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from bridge.settings.group import Group


class SuiteSettings(Group):
    """Of the tests."""

    title: ClassVar[str] = "Tests"

    fuzz: int = Field(default=3_000, ge=0, description="Readings that each fuzz test sends.")
    fuzz_seed: int = Field(default=1, description="Seed of the fuzz tests.")
    test_data: Path | None = Field(
        default=None, description="Directory of public recordings; tests that need one are skipped without it."
    )
