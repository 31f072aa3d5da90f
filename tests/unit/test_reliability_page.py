"""docs/reliability.md has a row for each injected fault, and no others."""

import re
from pathlib import Path

from tests.acceptance.chaos.nemesis import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_fault_table_is_that_of_the_harness() -> None:
    table = PAGE.read_text().split("## The faults")[1].split("## Figures")[0]
    named = [
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])
    ]
    assert sorted(named) == sorted(FAULTS)
