"""docs/views.md has the views, columns and functions of the migration, with their comments."""

from pathlib import Path

import pytest

from local import views_page
from local.cli import views

PAGE = Path(__file__).resolve().parents[2] / "docs" / "views.md"


def test_page_has_the_tables_that_the_comments_make() -> None:
    page = PAGE.read_text()
    assert views_page.renewed(page) == page, "run: python -m local views"


def test_command_renews_the_block_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "views.md"
    page.write_text(f"before\n{views_page.BEGIN}old\n{views_page.END}after\n")
    views(page)
    assert page.read_text() == f"before\n{views_page.block()}after\n"


def test_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="mark the generated part"):
        views_page.renewed("no block here\n")
