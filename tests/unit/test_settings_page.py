"""Nobody has to read code to know a setting."""

from pathlib import Path

from pydantic import BaseModel

from api.settings import ApiSettings
from local.settings import LocalSettings
from local.settings_page import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def _names(*classes: type[BaseModel]) -> set[str]:
    return {f"FLEET_{name.upper()}" for settings in classes for name in settings.model_fields}


def test_page_is_the_one_that_the_settings_make() -> None:
    assert PAGE.read_text() == page(), "run: python -m local settings > docs/settings.md"


def test_page_has_every_setting_described() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `FLEET_")]
    described = {name.strip(" `") for name, _, description in rows if description.strip() not in ("", "None")}
    assert described == _names(ApiSettings, LocalSettings)
