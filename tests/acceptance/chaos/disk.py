"""Small disks, and how they are filled."""

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from local.process import give_to_service

_DISK = "384m"


class CannotHappenHere(Exception):
    """This machine does not let us do it; the text says why."""


def small_disk(opened: contextlib.ExitStack) -> Path | None:
    """A disk of its own for a server's directory `data`, so that it can be filled; None when we may not mount one."""
    at = Path(tempfile.mkdtemp(prefix="chaos-disk-"))
    opened.callback(at.rmdir)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(at)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        return None
    opened.callback(subprocess.run, ["umount", str(at)], check=True)
    (at / "data").mkdir()
    at.chmod(0o755)
    give_to_service(at / "data")
    return at


@contextlib.contextmanager
def filled(disk: Path | None) -> Iterator[None]:
    """No byte is free inside. Raises `CannotHappenHere` without a disk."""
    if disk is None:
        raise CannotHappenHere("only root may mount the small disk that is filled")
    ballast = disk / "ballast"
    _fill(str(ballast))
    yield
    ballast.unlink()


def _fill(path: str) -> None:
    """Write until the disk is full, to the last byte."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    size = 1024 * 1024
    try:
        while size:
            try:
                os.write(file, bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    finally:
        os.close(file)
