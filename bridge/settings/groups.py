"""Groups of settings that several programs read."""

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field

from bridge.formats.port import AcceptedWindow
from bridge.quota import Quota
from bridge.settings.group import Group
from bridge.settings.values import DatabaseUrl, Seconds

_MIB = 1024 * 1024


class LogSettings(Group):
    """Settings of the logs, which are written to stderr."""

    title: ClassVar[str] = "Logs"

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="Format of the log; auto: console on a terminal, JSON elsewhere."
    )


class DatabaseSettings(Group):
    """The address of PostgreSQL."""

    title: ClassVar[str] = "Database"

    database_url: DatabaseUrl = Field(
        default="postgresql://fleet@127.0.0.1:5432/fleet", description="PostgreSQL, as a libpq URL."
    )


class AdministrationSettings(LogSettings, DatabaseSettings):
    """Settings of commands that read or change the database."""


class WindowSettings(Group):
    """The range of accepted device times."""

    title: ClassVar[str] = "Accepted times"

    past_limit_days: float = Field(
        default=90.0, ge=0.001, le=36_500, description="Readings with an older timestamp are rejected."
    )
    future_limit_s: float = Field(
        default=300.0,
        ge=0,
        le=366 * 86_400,
        description="Readings with a timestamp further in the future are rejected.",
    )

    @property
    def accepted_window(self) -> AcceptedWindow:
        """The range of accepted times around the current time."""
        return AcceptedWindow(timedelta(days=self.past_limit_days), timedelta(seconds=self.future_limit_s))


class ClockSettings(Group):
    """The comparison of the clock with the database's."""

    title: ClassVar[str] = "Accepted times"

    clock_limit_s: Seconds = Field(
        default=30.0,
        description="Maximum difference between the clocks of this machine and of the database; beyond it the program "
        "is not ready and acknowledges nothing.",
    )


class PartitionSettings(Group):
    """The partitions that are created before they are needed."""

    title: ClassVar[str] = "Keeper"

    partitions_ahead_days: int = Field(
        default=3, ge=0, le=366, description="Days before its first reading that the keeper creates a daily partition."
    )


class MigrationSettings(WindowSettings, PartitionSettings, AdministrationSettings):
    """Settings of `bridge migrate`."""

    @property
    def ahead_days(self) -> float:
        """How far ahead a reading or the keeper may need a partition."""
        return max(self.future_limit_s / 86_400, self.partitions_ahead_days)


class IntervalSettings(Group):
    """The interval of devices that declare none."""

    title: ClassVar[str] = "Writer"

    reading_interval_s: Seconds = Field(
        default=60.0,
        description="Expected time between two readings of a device that declares none; coverage is computed with it.",
    )


class WriterSettings(ClockSettings, IntervalSettings, DatabaseSettings):
    """Settings of the writer."""

    title: ClassVar[str] = "Writer"

    copy_above: int | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="A batch of more readings is stored by COPY, a smaller one by one call of a function, which is "
        "faster; 256 when unset. 0: COPY for every batch, for distributed tables.",
    )

    write_timeout_s: Seconds = Field(
        default=30.0, description="Maximum time of one database command of the writer; then the write has failed."
    )


class QuotaSettings(Group):
    """What is stored of one device in a day."""

    title: ClassVar[str] = "Quotas"

    device_readings_per_day: int = Field(
        default=1_000_000,
        ge=1,
        le=10**12,
        description="Maximum number of readings of a device that a process stores in a day; beyond it they are "
        "rejected as `quota_exceeded`.",
    )
    device_extra_mib_per_day: int = Field(
        default=256,
        ge=1,
        le=10**6,
        description="Maximum MiB of unknown fields of the readings of a device that a process stores in a day; beyond "
        "it such readings are rejected as `quota_exceeded`.",
    )
    device_rejects_per_day: int = Field(
        default=10_000,
        ge=1,
        le=10**12,
        description="Maximum number of rejects of a device that a process keeps in a day; beyond it a sample is kept "
        "and the others are counted.",
    )
    device_reject_mib_per_day: int = Field(
        default=32,
        ge=1,
        le=10**6,
        description="Maximum MiB of their payloads; beyond it a sample is kept and the others are counted.",
    )

    @property
    def quota(self) -> Quota:
        """The quotas of a device."""
        return Quota(
            self.device_readings_per_day,
            self.device_extra_mib_per_day * _MIB,
            self.device_rejects_per_day,
            self.device_reject_mib_per_day * _MIB,
        )


class BatchSettings(Group):
    """How readings are collected into transactions."""

    title: ClassVar[str] = "Batches"

    batch_size: int = Field(
        default=5_000,
        ge=1,
        le=100_000,
        description="Maximum number of readings in one transaction; more than 1 KiB counts as one for each KiB.",
    )
    buffer_capacity: int = Field(
        default=40_000,
        ge=1,
        le=10_000_000,
        description="Readings in memory at which the bridge stops reading from its sockets and the API answers 503.",
    )
