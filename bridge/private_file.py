"""Atomic, durable writes of files with secrets: a kill or a power failure never leaves a partial file."""

import contextlib
import os
from pathlib import Path


def write_private(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Write a file durably and atomically.

    Its owner and mode do not change; a new file has `mode` and the owner of its directory, which is created if missing.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    model = path if path.exists() else path.parent
    was = model.stat()
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fchmod(file.fileno(), was.st_mode & 0o777 if model is path else mode)
        if os.geteuid() == 0:
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), was.st_uid, was.st_gid)
        os.fsync(file.fileno())
    new.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make the renaming durable: until then a power failure can undo it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
