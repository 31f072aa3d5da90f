"""Runs the simulator's command line against a platform."""

import os
import subprocess
import sys
from pathlib import Path

from local.platform import Platform


def simulator(platform: Platform, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m simulator ...` with the platform's addresses in the environment."""
    command = [sys.executable, "-m", "simulator", *map(str, arguments)]
    env = {**os.environ, **platform.addresses, "COLUMNS": "200"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def counts(verified: "subprocess.CompletedProcess[str]") -> dict[str, int]:
    """The table that `verify` prints, by its first column."""
    rows = [line.split("│")[1:3] for line in verified.stdout.splitlines() if line.startswith("│")]
    return {name.strip(): int(count.replace(",", "")) for name, count in rows if name.strip()}
