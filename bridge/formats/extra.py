"""Fields that the contract does not define: stored unchanged within limits, or dropped with a warning. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from bridge.contract import KINDS, Kind
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
_ENERGY = {measure.name for kind in KINDS for measure in kind.measures if measure.sort != "gauge"}
_FIRST_LETTERS = frozenset(letter for name in _ENERGY for letter in (name[0], name[0].upper(), "_", "-"))
_NAMES = {name.casefold(): name for kind in KINDS for name in (kind.id_field, *(m.name for m in kind.measures))}
_LONGEST_NAME = 2 * max(map(len, _NAMES))


def meant(name: str) -> str | None:
    """The field of the contract, of any kind, whose name differs at most in case, `_` and `-`."""
    if len(name) > _LONGEST_NAME:
        return None
    return _NAMES.get(name.casefold().replace("_", "").replace("-", ""))


def not_counted(kind: Kind, extra: Mapping[str, Any]) -> list[FieldWarning]:
    """Warnings about energy in unknown fields: names that differ little from a measure's, and another kind's measures.

    At most three. A gauge of another kind is no mistake: many vehicles send the voltage of their battery.
    """
    warnings: list[FieldWarning] = []
    for name in extra:
        if name[:1] in _FIRST_LETTERS and (field := meant(name)) in _ENERGY and extra[name] is not None:
            is_own = any(measure.name == field for measure in kind.measures)
            hint = f"did you mean {field}?" if is_own else "it is a measure of another kind of device"
            warnings.append(FieldWarning("not_counted", name, f"an unknown field, which is in no figure; {hint}"))
            if len(warnings) == _MOST_WARNINGS:
                break
    return warnings


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
