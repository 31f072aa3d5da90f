"""Programs that need an optional dependency."""

import contextlib
import sys
from collections.abc import Iterator

from bridge.version import VERSION


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Import modules of the extra `name` in this context. If one is missing, print what to install and exit with 2.

    `--version` alone needs no extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if sys.argv[1:] == ["--version"]:
            sys.stdout.write(f"{VERSION}\n")
            raise SystemExit from None
        sys.stderr.write(f"{error.name} is not installed: install fleet-energy-bridge[{name}]\n")
        raise SystemExit(2) from error
