"""Programs that need an optional dependency."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Import modules of the extra `name` in this context. If one is missing, print what to install and exit with 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{error.name} is not installed: install fleet-energy-bridge[{name}]\n")
        raise SystemExit(2) from error
