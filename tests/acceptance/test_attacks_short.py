"""The victim is served beside attacks of each kind: a part of `python -m tests.acceptance.attacks`, in short."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.attacks.attack import Attack
from tests.acceptance.attacks.outcome import bars
from tests.acceptance.attacks.runner import run_attack
from tests.acceptance.attacks.stack import Stack
from tests.acceptance.attacks.suite import ATTACKS

_SECONDS = 2.5
_WAIT_S = 5.0
"""The bar on a machine that runs other tests; the faults kept others waiting for ten seconds and more."""
_CHOSEN = (
    *("announced", "half-sent", "small-chunked", "gzip-bombs", "pipelined", "reconnecting"),
    *("history", "streams", "unknown-keys", "nested-messages", "deep-messages"),
)
"""Those that stay below the bars by far; docs/security.md has all, and those that do not."""


class Stacks:
    """The stack of this module; a new one after an attack that was above a bar."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._stack: Stack | None = None

    def breaches(self, attack: Attack) -> list[str]:
        """What the attack did above the bars, twice: once it may be the machine."""
        return self._breaches(attack) and self._breaches(attack)

    def _breaches(self, attack: Attack) -> list[str]:
        if self._stack is None:
            self._count += 1
            self._stack = Stack(self._directory / str(self._count))
        found = run_attack(self._stack, attack, _SECONDS).breaches(bars(_WAIT_S))
        if found:
            self.close()
        return found

    def close(self) -> None:
        if self._stack is not None:
            self._stack.close()
            self._stack = None


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    stacks = Stacks(tmp_path_factory.mktemp("attacks"))
    yield stacks
    stacks.close()


@pytest.mark.parametrize("name", _CHOSEN)
def test_others_are_served_beside(name: str, stacks: Stacks) -> None:
    assert stacks.breaches(ATTACKS[name]) == []
