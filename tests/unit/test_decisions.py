"""The decisions are numbered without holes, follow their template, and are where the project's text says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
TEMPLATE = DECISIONS[0]


def parts(decision: Path) -> list[str]:
    """The names in bold that begin a paragraph."""
    return re.findall(r"^\*\*(\w+)\.\*\*", decision.read_text(), re.MULTILINE)


def test_numbers_have_no_holes() -> None:
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(len(DECISIONS)))


@pytest.mark.parametrize("decision", DECISIONS[1:], ids=lambda path: path.name)
def test_decision_follows_the_template(decision: Path) -> None:
    title = decision.read_text().splitlines()[0]
    assert re.fullmatch(rf"# {decision.name[:4]}: [A-Z].*[^.]", title)
    assert [part for part in parts(decision) if part in parts(TEMPLATE)] == parts(TEMPLATE)


def test_decisions_that_are_referred_to_exist() -> None:
    folders = ("docs", "bridge", "api", "simulator", "local", "mosquitto")
    texts = [
        path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".md")
    ]
    names = {name for text in texts for name in re.findall(r"\b(\d{4}-[a-z-]+\.md)", text)}
    assert names
    assert names <= {path.name for path in DECISIONS}
