"""docs/figures.md: its pictures are those that the energy algebra computes, and it names every field of the answers."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from api import models
from scripts.figures import PICTURES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "figures.md").read_text()
ALT_TEXTS = {name: text for text, name in re.findall(r"!\[([^]]*)\]\(figures/([a-z-]+)\.svg\)", PAGE)}
DESCRIPTION = ".//{http://purl.org/dc/elements/1.1/}description"
ENERGY = (models.Performance, models.EnergyItem, models.Session)
NO_FIGURES = {"vehicleId", "from", "to", "id", "site", "meters"}


def drawn(name: str) -> str:
    return (DOCS / "figures" / f"{name}.svg").read_text()


@pytest.mark.parametrize("name", PICTURES)
def test_picture_has_the_numbers_that_the_algebra_computes(name: str) -> None:
    description = ElementTree.fromstring(drawn(name)).findtext(DESCRIPTION)
    assert description is not None
    assert json.loads(description) == pytest.approx(dict(PICTURES[name].numbers()), rel=1e-12)


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_the_one_that_is_drawn(name: str) -> None:
    assert PICTURES[name].svg() == drawn(name), "run: python -m scripts.figures"
    assert len(drawn(name)) < 40_000


def test_page_shows_every_picture_once() -> None:
    assert {path.stem for path in (DOCS / "figures").iterdir()} == PICTURES.keys()
    assert PAGE.count(".svg)") == len(PICTURES)
    assert ALT_TEXTS.keys() == PICTURES.keys()


@pytest.mark.parametrize("name", PICTURES)
def test_alternative_text_has_the_numbers_of_the_picture(name: str) -> None:
    said = {float(number) for number in re.findall(r"(-?\d+(?:\.\d+)?) (?:kWh|degC)", ALT_TEXTS[name])}
    said |= {float(number) for number in re.findall(r"(?:coverage|efficiency) (\d\.\d+)", ALT_TEXTS[name])}
    assert said
    assert said <= {round(number, 4) for number in PICTURES[name].numbers().values()}


def test_page_names_every_field() -> None:
    fields = {field.alias or name for model in ENERGY for name, field in model.model_fields.items()} - NO_FIGURES
    listed = re.findall(r"^\| (`.*?) \|", PAGE.partition("## Fields")[2].partition("\n## ")[0], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(listed))) == fields


def test_links_within_the_page_lead_to_its_sections() -> None:
    sections = {title.lower().replace(" ", "-").replace("'", "") for title in re.findall(r"^##+ (.*)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= sections
