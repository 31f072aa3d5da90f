"""The settings of `python -m mosquitto`."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from bridge.settings.groups import LogSettings


class ProvisioningSettings(LogSettings):
    """All settings of `mosquitto device`."""

    title: ClassVar[str] = "Provisioning"

    mosquitto_dir: Path = Field(
        default=Path(".local/mosquitto"), description="Directory that `python -m mosquitto ca init` has made."
    )
