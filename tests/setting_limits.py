"""The least and the greatest accepted value of the numbers among the settings."""

from typing import Any

from bridge.settings.group import Group


def limits_of(kind: type[Group]) -> dict[str, tuple[float, float]]:
    """Of each number of a program. Raises `KeyError` for a number without limits."""
    properties: dict[str, dict[str, Any]] = kind.model_json_schema()["properties"]
    return {
        name: (schema["minimum"], schema["maximum"])
        for name, schema in properties.items()
        if schema.get("type") in ("integer", "number")
    }
