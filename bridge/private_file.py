"""Durable, atomic files with secrets: after a kill or a power failure a file is whole, and what was reported is there.

A file is written beside its final name, synced, renamed, and its directory synced, in this order: without the first
sync the name can point at an empty file after a power failure, without the second the name can be missing.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bridge.errors import Misconfigured


def write_private(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Write a file with this mode, durably and atomically, also when several processes write it.

    Its owner does not change; a new file has that of its directory, which is created if missing. Of a symbolic link
    the file that it points at is written.
    """
    path = path.resolve()
    with _written(path, content, mode) as name:
        Path(name).replace(path)


def create_private(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Like `write_private`, but an existing file is kept: of several processes only one creates it."""
    path = path.resolve()
    if path.exists():
        return
    with _written(path, content, mode) as name:
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
        Path(name).unlink()


def read_private(path: Path, remedy: str) -> str:
    """The text of a file that must not be empty. Raises `Misconfigured` with its path and the remedy otherwise."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise Misconfigured(f"{path} is missing: {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Misconfigured(f"{path} cannot be read ({reason}): {remedy}") from None
    if not text.strip("\0 \r\n"):  # a file system may leave zeros in place of what was not synced
        raise Misconfigured(f"{path} is empty: {remedy}")
    return text


def make_private_directory(directory: Path) -> None:
    """Create a directory and its missing parents, durably, accessible to the owner only."""
    missing = [level for level in (directory, *directory.parents) if not level.exists()]
    for level in reversed(missing):
        level.mkdir(mode=0o700, exist_ok=True)
        sync_directory(level.parent)


def sync_directory(directory: Path) -> None:
    """Make created and renamed names in a directory durable: until then a power failure can undo them."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _written(path: Path, content: str | bytes, mode: int) -> Iterator[str]:
    """The name of a synced temporary file beside `path`, which the block moves; then the directory is synced."""
    make_private_directory(path.parent)
    owner = (path if path.exists() else path.parent).stat()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0:
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(file.fileno())
        yield name
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
