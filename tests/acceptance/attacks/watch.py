"""Memory of the processes under attack, and what the kernel holds for their sockets."""

import contextlib
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_EVERY_S = 0.1
_MIB = 2**20
_RESET_PEAK = "5"


class Watch:
    """Peaks between entering and leaving the context."""

    def __init__(self, pids: Mapping[str, int], ports: Sequence[int], most_mib: float) -> None:
        self._pids = pids
        self._ports = frozenset(ports)
        self._most_mib = most_mib
        self.peaks_mib: dict[str, float] = dict.fromkeys(pids, 0.0)
        """The largest resident set of each process."""
        self.kernel_mib = 0.0
        """The most that waited in the kernel, in sockets of these ports, until a client or the server reads it."""
        self.too_much = threading.Event()
        """Set when a process has more than `most_mib`: the attack must end before it takes the machine's memory."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        for pid in self._pids.values():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        for name, pid in self._pids.items():
            with contextlib.suppress(OSError):  # it has ended
                status = Path(f"/proc/{pid}/status").read_text()
                for kib in re.findall(r"VmHWM:\s+(\d+) kB", status):  # none of one that nobody has waited for
                    self.peaks_mib[name] = max(self.peaks_mib[name], int(kib) / 1024)
        self.kernel_mib = max(self.kernel_mib, self._kernel_mib())
        if max(self.peaks_mib.values()) > self._most_mib:
            self.too_much.set()

    def _kernel_mib(self) -> float:
        total = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, _, queues, *_ = line.split()
            if int(local.rpartition(":")[2], 16) in self._ports:
                total += sum(int(size, 16) for size in queues.split(":"))
        return total / _MIB


def size_mib(directory: Path) -> float:
    """The files below a directory."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            total += path.lstat().st_size
    return total / _MIB
