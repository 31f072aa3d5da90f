"""docs/settings.md contains every setting with its description; page and names follow from the declarations."""

import re
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from bridge.settings.bridge import BridgeSettings
from bridge.settings.group import variable
from bridge.settings.mqtt import MqttSettings
from bridge.settings.names import known
from bridge.settings.programs import PROGRAMS
from local.settings_page import page

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "settings.md"
TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docker-compose.yml", *(ROOT / "docs").glob("*.md")]


def rows(text: str) -> dict[str, list[str]]:
    """The other cells of each setting, by its variable."""
    tables = text.partition("## Renamed")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables if line.startswith("| `FLEET_")]
    assert len(cells) == len({row[0] for row in cells}), "a setting is listed twice"
    return {row[0].strip("`"): row[1:] for row in cells}


def test_page_is_the_one_that_the_settings_make() -> None:
    assert PAGE.read_text() == page(), "run: python -m local settings"


def test_page_has_every_setting_described_with_its_readers() -> None:
    described = rows(PAGE.read_text())
    assert described.keys() == {variable(name) for name in known()}
    assert all(len(cells) == 4 and cells[2].endswith(".") and cells[3] for cells in described.values())


@pytest.mark.parametrize(
    ("name", "limits", "readers"),
    [
        ("FLEET_BATCH_WAIT_MS", "ms, 0 to 60,000", "bridge run"),
        ("FLEET_LOG_FORMAT", "`auto`, `json`, `console`", "bridge, api, simulator, mosquitto, make up, local"),
        ("FLEET_MQTT_CA_FILE", "", "bridge run, bridge keep, bridge relay, simulator run, simulator replay"),
        ("FLEET_MQTT_KEEP_ALIVE_S", "s, 1 to 65,535", "bridge run"),
        ("FLEET_SOURCE", "`mqtt`, `jetstream`, `kafka`", "bridge run"),
        ("FLEET_POSTGRES_SHARED_BUFFERS", "", "docker compose"),
        ("FLEET_RATE_LIMIT_PER_S", "per s, 0.001 to 1,000,000,000", "api run"),
    ],
)
def test_page_has_unit_limits_and_readers(name: str, limits: str, readers: str) -> None:
    _, shown, _, read_by = rows(PAGE.read_text())[name]
    assert (shown, read_by) == (limits, readers)


def test_new_setting_is_one_declaration() -> None:
    class Wider(BridgeSettings):
        title: ClassVar[str] = "Bridge"

        new_pause_s: float = Field(default=2.0, ge=1, le=3, description="A new pause.")

    programs = {**PROGRAMS, "bridge run": (Wider, MqttSettings)}
    assert known(programs) - known() == {"new_pause_s"}
    assert rows(page(programs))["FLEET_NEW_PAUSE_S"] == ["`2.0`", "s, 1 to 3", "A new pause.", "bridge run"]
    assert Wider.read({"FLEET_NEW_PAUSE_S": "3"}).new_pause_s == 3


@pytest.mark.parametrize("text", [text for text in TEXTS if text != PAGE], ids=lambda text: text.name)
def test_documented_variable_exists(text: Path) -> None:
    named = set(re.findall(r"FLEET_[A-Z][A-Z0-9_]*[A-Z0-9]", text.read_text()))
    assert named <= {variable(name) for name in known()}
