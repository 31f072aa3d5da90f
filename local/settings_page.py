"""docs/settings.md, made from the settings themselves: `python -m local settings` renews it."""

from collections.abc import Iterator, Mapping
from typing import Any

from bridge.settings.group import RENAMED, Group, variable
from bridge.settings.programs import PROGRAMS, Programs
from bridge.sources import SOURCES

_HEAD = """# Settings

<!-- Made from bridge/settings by: python -m local settings -->

Every setting is an environment variable that is read once, when a program starts. If one that the program reads is
wrong, the program ends with exit code 2 and names the variable and the reason; settings of other programs do not stop
it. For a `FLEET_` variable that no program reads there is a warning in the log (`unknown setting`) with the most
similar known name. Names are in upper case; an empty variable counts as not set. `make up` passes its environment on to
the programs that it starts.
"""
_TABLE = "\n## {title}\n\n| variable | default | unit, limits | meaning | read by |\n|---|---|---|---|---|\n"
_RENAMED = """
## Renamed

The old names still work in this version, with a warning in the log (`renamed setting`). Where both are set, the new
one takes precedence.

| old | new |
|---|---|
"""
_UNITS = {"ms": "ms", "s": "s", "days": "days", "bytes": "bytes", "mib": "MiB"}


def page(programs: Programs = PROGRAMS) -> str:
    """The whole page in Markdown: each setting once, with its default, unit, limits, meaning and readers."""
    sections: dict[str, dict[str, str]] = {}
    for kind in (kind for kinds in programs.values() for kind in kinds):
        for name in kind.model_fields:
            rows = sections.setdefault(_owner(kind, name).title, {})
            rows.setdefault(name, _row(kind, name, _readers(name, programs)))
    tables = (_TABLE.format(title=title) + "".join(rows.values()) for title, rows in sections.items())
    renamed = (f"| `{variable(old)}` | `{variable(new)}` |\n" for old, new in RENAMED.items())
    return _HEAD + "".join(tables) + _RENAMED + "".join(renamed)


def _owner(kind: type[Group], name: str) -> type[Group]:
    """The group that declares the field."""
    return next(k for k in reversed(kind.__mro__) if issubclass(k, Group) and name in k.model_fields)


def _readers(name: str, programs: Programs) -> str:
    """The programs that read the field; one of which all commands read it is named without them."""
    reads = {program: any(name in kind.model_fields for kind in kinds) for program, kinds in programs.items()}
    modules = {program: program.split()[0] for program in programs if program.split()[0] not in ("make", "docker")}
    whole = {m for m in modules.values() if all(reads[p] for p in programs if modules.get(p) == m)}
    return ", ".join(dict.fromkeys(modules[p] if modules.get(p) in whole else p for p in programs if reads[p]))


def _row(kind: type[Group], name: str, readers: str) -> str:
    field = kind.model_fields[name]
    limits = ", ".join(_limits(name, kind.model_json_schema()["properties"][name]))
    return f"| `{variable(name)}` | {_shown(field.default)} | {limits} | {field.description} | {readers} |\n"


def _shown(default: Any) -> str:
    return "" if default is None or default == "" else f"`{default}`"


def _limits(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """The unit, which is the end of the name, and what the schema allows."""
    schema = schema.get("anyOf", [schema])[0]  # of an optional one
    if unit := _UNITS.get(name.rpartition("_")[2]):
        yield "per s" if name.endswith("_per_s") else unit
    if "minimum" in schema and "maximum" in schema:
        yield " to ".join(f"{schema[limit]:,}".removesuffix(".0") for limit in ("minimum", "maximum"))
    if name == "source":  # the settings do not import the sources
        yield ", ".join(f"`{source}`" for source in SOURCES)
    if "enum" in schema:
        yield ", ".join(f"`{value}`" for value in schema["enum"])
    if "pattern" in schema:
        yield f"`{schema['pattern']}`"
