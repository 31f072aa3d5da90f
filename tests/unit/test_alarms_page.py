"""docs/operations.md has the alarms of the rules file."""

from pathlib import Path

import pytest

from local import alarms_page
from local.cli import alarms

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_page_has_the_table_that_the_rules_make() -> None:
    page = PAGE.read_text()
    assert alarms_page.renewed(page) == page, "run: python -m local alarms"


def test_command_renews_the_block_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "operations.md"
    page.write_text(f"before\n{alarms_page.BEGIN}old\n{alarms_page.END}after\n")
    alarms(page)
    assert page.read_text() == f"before\n{alarms_page.block()}after\n"


def test_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="mark the generated part"):
        alarms_page.renewed("no block here\n")


def test_every_row_of_the_table_has_four_cells() -> None:
    rows = [line for line in alarms_page.block().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(alarms_page.alarms())
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)
