"""The generated part of docs/devices.md: `python -m local contract docs/devices.md` updates it from the contract."""

from collections.abc import Iterator

from bridge.contract import KINDS, Kind, Measure

BEGIN = "<!-- Generated from bridge/contract.py by: python -m local contract docs/devices.md -->\n"
END = "<!-- End of the generated part. -->\n"
_HEAD = """
**A {name}** has the id `{id_field}` and publishes to `{topic}`.

| measure | sort | unit | limits | meaning |
|---|---|---|---|---|
"""


def block() -> str:
    """A table of the measures of each kind, in Markdown, between the two comments that mark it."""
    tables = "".join(_head(kind) + "".join(_rows(kind)) for kind in KINDS)
    return f"{BEGIN}{tables}\n{END}"


def renewed(page: str) -> str:
    """The page with its block replaced by the current one. Raises `ValueError` when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the comments that mark the generated part")
    return before + block() + after


def _head(kind: Kind) -> str:
    return _HEAD.format(name=kind.name, id_field=kind.id_field, topic=kind.topic(f"{{{kind.id_field}}}"))


def _rows(kind: Kind) -> Iterator[str]:
    for measure in kind.measures:
        yield f"| `{measure.name}` | {measure.sort} | {measure.unit} | {limits(measure)} | {measure.meaning} |\n"


def limits(measure: Measure) -> str:
    """The smallest and the largest allowed value: `0 to 1,000`."""
    return f"{measure.least:,.10g} to {measure.most:,.10g}"
