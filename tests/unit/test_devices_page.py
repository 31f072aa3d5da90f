"""docs/devices.md agrees with the contract: its tables are generated, its numbers are compared with the code."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.contract import KINDS, Kind
from bridge.formats.extra import MAX_BYTES, MAX_DEPTH, MAX_FIELDS
from bridge.formats.port import MAX_READINGS_PER_BODY, MAX_READINGS_PER_MESSAGE
from bridge.reading import WarningCode
from bridge.settings.groups import WindowSettings
from local import contract_page

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "devices.md").read_text()
ROWS = [[cell.strip(" `") for cell in line.strip("|\n").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]


def test_tables_are_those_that_the_contract_makes() -> None:
    assert contract_page.renewed(PAGE) == PAGE, "run: python -m local contract docs/devices.md"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_measure_has_its_row(kind: Kind) -> None:
    assert f"`{kind.id_field}`" in PAGE
    assert f"`{kind.topic(f'{{{kind.id_field}}}')}`" in PAGE
    for measure in kind.measures:
        limits = f"{measure.least:,.10g} to {measure.most:,.10g}"
        assert [measure.name, measure.sort, measure.unit, limits, measure.meaning] in ROWS


def test_another_limit_makes_another_page(monkeypatch: pytest.MonkeyPatch) -> None:
    first = KINDS[0]
    wider = first.measures[0]._replace(most=12_345.5)
    changed = dataclasses.replace(first, measures=(wider, *first.measures[1:]))
    monkeypatch.setattr(contract_page, "KINDS", (changed, *KINDS[1:]))
    assert "0 to 12,345.5" in contract_page.renewed(PAGE)
    assert contract_page.renewed(PAGE) != PAGE


def test_command_renews_the_page(tmp_path: Path) -> None:
    page = tmp_path / "devices.md"
    page.write_text(f"before\n{contract_page.BEGIN}old\n{contract_page.END}after\n")
    subprocess.run([sys.executable, "-m", "local", "contract", str(page)], cwd=ROOT, check=True, timeout=60)
    assert page.read_text() == f"before\n{contract_page.block()}after\n"
    page.write_text("no marks")
    failed = subprocess.run(
        [sys.executable, "-m", "local", "contract", str(page)], cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    assert failed.returncode == 1
    assert b"lacks the comments" in failed.stderr
    assert page.read_text() == "no marks"


def test_numbers_of_the_page_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    settings = WindowSettings.model_fields
    assert f"up to {MAX_FIELDS} fields, {MAX_BYTES // 1024} KiB of JSON together, {MAX_DEPTH} levels" in text
    assert (
        f"up to {MAX_READINGS_PER_MESSAGE:,} readings of the device in a message ({MAX_READINGS_PER_BODY:,} of" in text
    )
    assert f"{settings['future_limit_s'].default / 60:g} minutes in the future" in text
    assert f"{settings['past_limit_days'].default:g} days in the past" in text
    assert ", ".join(f"{kind.name}: {kind.rated_kw:,.10g} kW" for kind in KINDS) in text


def test_every_warning_is_explained() -> None:
    for code in WarningCode.__args__:  # type: ignore[attr-defined]
        assert f"`{code}`" in PAGE
