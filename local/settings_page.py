"""docs/settings.md, made from the settings themselves: `python -m local settings > docs/settings.md`."""

from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from api.settings import ApiSettings
from bridge.settings import Settings
from local.settings import LocalSettings

_HEAD = """# Settings

Every setting is an environment variable, read once at the start; one that is wrong stops the start with its name and
the reason.
This page is made from the settings' own descriptions (`python -m local settings`), and a test holds that it is.
"""
_TABLE = "\n## {title}\n\n| variable | default | |\n|---|---|---|\n"


def page() -> str:
    """The whole page in Markdown: each setting once, with its default and meaning."""
    bridge, api = Settings.model_fields, ApiSettings.model_fields
    sections = {
        "The bridge and the API": bridge,
        "The API alone": {name: field for name, field in api.items() if name not in bridge},
        "`make up`": LocalSettings.model_fields,
    }
    return _HEAD + "".join(_TABLE.format(title=title) + "".join(_rows(fields)) for title, fields in sections.items())


def _rows(fields: dict[str, FieldInfo]) -> Iterator[str]:
    for name, field in fields.items():
        yield f"| `FLEET_{name.upper()}` | {_shown(field.default)} | {field.description} |\n"


def _shown(default: Any) -> str:
    return "" if default is None or default == "" else f"`{default}`"
