"""The table of alarms in docs/operations.md, made from the rules of Prometheus: `python -m local alarms` renews it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

BEGIN = "<!-- Made from local/monitoring/rules.yml by: python -m local alarms -->\n"
END = "<!-- End of the generated part. -->\n"
RULES = Path(__file__).parent / "monitoring" / "rules.yml"


class Alarm(NamedTuple):
    """A rule that raises an alarm."""

    name: str
    expression: str
    """PromQL."""
    lasting: str
    """How long it must hold, in Prometheus' notation; empty if it is raised at once."""
    meaning: str
    action: str


def alarms() -> list[Alarm]:
    """Those of the rules file of this checkout, in its order. Raises `OSError`."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [_alarm(rule) for group in groups for rule in group["rules"]]


def _alarm(rule: dict[str, object]) -> Alarm:
    texts = rule["annotations"]
    assert isinstance(texts, dict)
    return Alarm(
        str(rule["alert"]), str(rule["expr"]), str(rule.get("for", "")), str(texts["summary"]), str(texts["action"])
    )


def block() -> str:
    """The table, in Markdown, between its marks."""
    return BEGIN + "".join(_rows()) + END


def renewed(page: str) -> str:
    """The page with its block replaced by the current one. Raises `ValueError` when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the comments that mark the generated part")
    return before + block() + after


def _rows() -> Iterator[str]:
    yield "\n| alarm | raised when | meaning | action |\n|---|---|---|---|\n"
    for alarm in alarms():
        lasting = f" for {alarm.lasting}" if alarm.lasting else ""
        when = f"`{_cell(alarm.expression)}`{lasting}"
        yield f"| {alarm.name} | {when} | {_cell(alarm.meaning)} | {_cell(alarm.action)} |\n"
    yield "\n"


def _cell(text: str) -> str:
    """Text in a cell of a table, where a vertical bar would end it."""
    return text.replace("|", "\\|")
