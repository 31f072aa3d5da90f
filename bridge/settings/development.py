"""The settings of the project's tests."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from bridge.settings.group import Group


class SuiteSettings(Group):
    """Settings of the tests."""

    title: ClassVar[str] = "Tests"

    fuzz: int = Field(default=3_000, ge=0, le=100_000_000, description="Readings that each fuzz test sends.")
    fuzz_seed: int = Field(default=1, ge=0, le=4_294_967_295, description="Seed of the fuzz tests.")
    test_data: Path | None = Field(
        default=None, description="Directory of public recordings; tests that need one are skipped without it."
    )
    test_postgres_bin: Path | None = Field(
        default=None, description="Directory of the PostgreSQL programs to test with; those of the wheel when unset."
    )
    test_mosquitto: Path | None = Field(
        default=None, description="The Mosquitto to test with; the system's when unset."
    )
    test_kafka_jars: Path | None = Field(
        default=None,
        description="Directory of the jars of a Kafka broker; the tests of Kafka are skipped without it.",
    )
    test_index: Literal["optional", "required"] = Field(
        default="optional",
        description="Whether the test of the wheel fails (required) or is skipped without a package index.",
    )
    test_first_port: int = Field(
        default=15_000,
        ge=1_024,
        le=65_535,
        description="The first port of the tests' servers. Processes of one test run have different ones.",
    )
    test_last_port: int = Field(default=31_999, ge=1_024, le=65_535, description="The last of them.")
