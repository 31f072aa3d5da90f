"""Fields that the contract does not define: stored unchanged within limits, or dropped with a warning. Pure."""

import json
from typing import Any

from bridge.formats.document import deeper_than, more_values_than
from bridge.formats.payload import REFUSED
from bridge.reading import Extra, FieldWarning, jsonb_text

MAX_BYTES = 16 * 1024
"""Limit of all unknown fields of a reading together, as UTF-8 JSON."""
MAX_ORIGINALS_BYTES = 4 * 1024
"""Limit of all original values of refused gauges; a device may itself send more under that name, which is dropped."""
MAX_FIELDS = 128
MAX_DEPTH = 100
"""Levels of lists and objects in an unknown field, far below the limits of the parsers and the database."""
_MOST_VALUES = MAX_BYTES // 2  # each has at least one byte, and a comma or bracket
_LONGEST_ORIGINAL = 200
_MOST_WARNINGS = 3
"""Limit of warnings about single fields of a reading; one more warning has the number of the others."""


def bounded(extra: dict[str, Any]) -> tuple[Extra, list[FieldWarning]]:
    """Return the unknown fields that can be stored, and warnings about the others.

    A field that PostgreSQL's jsonb cannot store is dropped alone. If there are too many fields, or they are too large
    together, all are dropped. The original values of refused gauges have separate limits.
    """
    if len(extra) <= MAX_FIELDS and _fits(extra):
        return extra, []
    refused = extra.get(REFUSED)
    own = {name: value for name, value in extra.items() if name != REFUSED or not isinstance(refused, dict)}
    too_many = len(own) > MAX_FIELDS or _has_too_many_values(own)
    kept, dropped = ({}, {}) if too_many else _storable(own)
    warnings = [FieldWarning("extra", ascii(name)[1:-1][:100], reason) for name, reason in dropped.items()]
    if len(warnings) > _MOST_WARNINGS:
        more = len(warnings) - _MOST_WARNINGS
        warnings[_MOST_WARNINGS:] = [FieldWarning("extra", "extra", f"{more} more fields cannot be stored")]
    if (reason := _excess(own if too_many else kept)) is not None:
        warnings.append(FieldWarning("extra", "extra", reason))
        kept = {}
    if isinstance(refused, dict):
        kept = _with_originals(kept, refused)
    return kept or None, warnings


def _storable(extra: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields that can each be stored, and the reasons why the others cannot."""
    reasons = {name: _unstorable(name, value) for name, value in extra.items()}
    kept = {name: value for name, value in extra.items() if reasons[name] is None}
    return kept, {name: reason for name, reason in reasons.items() if reason is not None}


def _with_originals(kept: dict[str, Any], refused: dict[str, Any]) -> dict[str, Any]:
    originals = _originals(refused) if len(refused) <= MAX_FIELDS else {}
    fit = len(jsonb_text(originals).encode()) <= MAX_ORIGINALS_BYTES
    return {**kept, REFUSED: originals} if originals and fit else kept


def _has_too_many_values(extra: dict[str, Any]) -> bool:
    """Whether they cannot fit, as far as counting tells: it costs less than serializing them."""
    return more_values_than(_MOST_VALUES, extra, MAX_DEPTH)


def _fits(extra: dict[str, Any]) -> bool:
    if _has_too_many_values(extra):
        return False
    try:
        text = jsonb_text(extra)
    except (ValueError, RecursionError):
        return False
    if len(text) > MAX_BYTES // 4 and len(text.encode()) > MAX_BYTES:
        return False
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    return not (may_be_deep and deeper_than(MAX_DEPTH + 1, extra))


def _unstorable(name: str, value: Any) -> str | None:
    """Why this field cannot be stored, or None."""
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
        return f"{len(extra)} unknown fields; at most {MAX_FIELDS} are stored"
    if not extra:
        return None
    if _has_too_many_values(extra):
        return f"more than {_MOST_VALUES} values in unknown fields; at most {MAX_BYTES} bytes are stored"
    size = len(jsonb_text(extra).encode())
    return f"{size} bytes of unknown fields; at most {MAX_BYTES} are stored" if size > MAX_BYTES else None


def _originals(refused: dict[str, Any]) -> dict[str, Any]:
    """The original values of refused gauges, shortened. A name that jsonb cannot store is not that of a gauge."""
    return {name: _original(name, value) for name, value in refused.items() if _unstorable(name, None) is None}


def _original(name: str, value: Any) -> Any:
    """The original value of a gauge if it is short and can be stored, else the beginning of its JSON text."""
    if deeper_than(MAX_DEPTH, value):
        return "nested too deeply"
    if isinstance(value, str) and _unstorable(name, value) is None:
        return value[:_LONGEST_ORIGINAL]
    text = _beginning(value)
    if len(text) <= _LONGEST_ORIGINAL and _unstorable(name, value) is None:
        return value
    return text[:_LONGEST_ORIGINAL]


def _beginning(value: Any) -> str:
    """The first part of a value's JSON text, longer than an original may be if the text is; the rest is not made."""
    text = ""
    for part in json.JSONEncoder().iterencode(value):
        text += part
        if len(text) > _LONGEST_ORIGINAL:
            break
    return text
