"""The fields that the contract does not name: kept as they are, within bounds, or dropped with a warning. Pure."""

import json
from typing import Any

from bridge.document import deeper_than
from bridge.payload import REFUSED
from bridge.reading import Extra, FieldWarning, jsonb_text

MAX_BYTES = 16 * 1024
"""Of all unknown fields of a reading together, as UTF-8 JSON."""
MAX_FIELDS = 128
MAX_DEPTH = 100
"""Levels of lists and objects in an unknown field: far from where any parser or database gives up."""
_LONGEST_ORIGINAL = 200


def bounded(extra: dict[str, Any]) -> tuple[Extra, list[FieldWarning]]:
    """What can be kept of the unknown fields, and a warning for each that cannot.

    A field that PostgreSQL's jsonb cannot hold is dropped alone. Fields that are too many or too large together are
    all dropped, but for the originals of refused gauges, which are shortened.
    """
    if len(extra) <= MAX_FIELDS and _fits(extra):
        return extra, []
    kept: dict[str, Any] = {}
    warnings: list[FieldWarning] = []
    for name, value in extra.items():
        reason = _unstorable(name, value)
        if reason is None:
            kept[name] = value
        elif name == REFUSED and isinstance(value, dict):
            kept[name] = _originals(value)
        else:
            warnings.append(FieldWarning("extra", ascii(name)[1:-1][:100], reason))
    if (reason := _excess(kept)) is not None:
        warnings.append(FieldWarning("extra", "extra", reason))
        refused = kept.get(REFUSED)
        kept = {} if not isinstance(refused, dict) else {REFUSED: _originals(refused)}
        if _excess(kept) is not None:
            kept = {}
    return kept or None, warnings


def _fits(extra: dict[str, Any]) -> bool:
    try:
        text = jsonb_text(extra)
    except (ValueError, RecursionError):
        return False
    if len(text) > MAX_BYTES // 4 and len(text.encode()) > MAX_BYTES:
        return False
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    return not (may_be_deep and deeper_than(MAX_DEPTH + 1, extra))


def _unstorable(name: str, value: Any) -> str | None:
    """Why this field cannot be kept, or None."""
    if deeper_than(MAX_DEPTH, value):
        return f"nested more than {MAX_DEPTH} levels deep"
    try:
        jsonb_text({name: value})
    except ValueError as error:
        return str(error)
    return None


def _excess(extra: dict[str, Any]) -> str | None:
    """Why these fields are too many or too large together, or None."""
    if len(extra) > MAX_FIELDS:
        return f"{len(extra)} unknown fields; at most {MAX_FIELDS} are kept"
    size = len(jsonb_text(extra).encode())
    return f"{size} bytes of unknown fields; at most {MAX_BYTES} are kept" if size > MAX_BYTES else None


def _originals(refused: dict[str, Any]) -> dict[str, Any]:
    """The originals of refused gauges, shortened. A name that jsonb cannot hold is none of ours."""
    return {name: _original(name, value) for name, value in refused.items() if _unstorable(name, None) is None}


def _original(name: str, value: Any) -> Any:
    """A gauge's value as it came where that is short and can be stored, else the begin of its text."""
    if deeper_than(MAX_DEPTH, value):
        return "nested too deep"
    text = json.dumps(value)
    if len(text) <= _LONGEST_ORIGINAL and _unstorable(name, value) is None:
        return value
    return text[:_LONGEST_ORIGINAL]
