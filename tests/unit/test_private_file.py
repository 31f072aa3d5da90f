"""A private file is there whole or not at all, and nobody else reads it at any time."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from bridge.private_file import write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_new_file_is_private_and_so_is_its_new_directory(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    write_private(path, "täxt")
    assert path.read_bytes() == "täxt".encode()
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path]


def test_file_that_others_could_read_is_private_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"old", mode=0o644)
    write_private(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


def test_new_file_may_be_readable_in_a_private_directory(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", "x", mode=0o644)
    assert mode(tmp_path / "secret") == 0o644


@pytest.mark.parametrize("exists", [True, False])
def test_file_that_a_link_points_at_is_written(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "secret"
    if exists:
        write_private(target, "old")
    link.symlink_to(target)
    write_private(link, "new")
    assert link.is_symlink()
    assert (target.read_text(), mode(target)) == ("new", 0o600)
    assert list(target.parent.iterdir()) == [target]


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(path, "x")
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, contents = tmp_path / "secret", [bytes([n]) * 100_000 for n in range(40)]
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(partial(write_private, path), contents))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_reader_never_sees_a_part(tmp_path: Path) -> None:
    path, contents = tmp_path / "secret", [bytes([n]) * 500_000 for n in range(40)]
    write_private(path, contents[0])

    def write() -> None:
        for content in contents:
            write_private(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    seen = set[bytes]()
    while writer.is_alive():
        seen.add(path.read_bytes())
    assert seen <= set(contents)


def test_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"\0" * 1_000_000)
    script = (
        "import sys, itertools, pathlib; from bridge.private_file import write_private\n"
        "for n in itertools.count(1): write_private(pathlib.Path(sys.argv[1]), bytes([n % 256]) * 1_000_000); print(n)"
    )
    command = [sys.executable, "-u", "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    content = path.read_bytes()
    assert len(content) == 1_000_000
    assert len(set(content)) == 1
    assert content[0] >= 3
