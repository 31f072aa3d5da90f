"""Programs that need an optional dependency."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Import here what the extra `name` installs. Without it, the program ends with 2 and says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{error.name} is not installed: install fleet-energy-bridge[{name}]\n")
        raise SystemExit(2) from error
