"""User and system time of processes."""

import contextlib

import psutil


def cpu_of(pid: int) -> float:
    """Seconds that a process has used since its start."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def cpu_of_server(postmaster: int) -> float:
    """Seconds that PostgreSQL has used: the process, its children, and those that have ended."""
    server = psutil.Process(postmaster)
    times = server.cpu_times()
    used = times.user + times.system + times.children_user + times.children_system
    for child in server.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            used += cpu_of(child.pid)
    return float(used)
