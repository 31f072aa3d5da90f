"""`python -m scripts.figures`, in a checkout of the repository."""

from pathlib import Path

from scripts.figures import PICTURES

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "figures"

for name, picture in PICTURES.items():
    (DIRECTORY / f"{name}.svg").write_text(picture.svg())
