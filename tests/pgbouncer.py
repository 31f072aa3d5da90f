"""A real PgBouncer in front of the tests' PostgreSQL: the system's, or unpacked by `make test`."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from local.ports import free_port
from local.process import Process, give_to_service
from tests.until import wait_until

_UNPACKED = Path(__file__).resolve().parents[1] / ".servers" / "pgbouncer" / "usr" / "sbin"


def _program() -> str:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", str(_UNPACKED)))
    found = shutil.which("pgbouncer", path=path)
    assert found, "pgbouncer is missing: `sh scripts/pgbouncer .servers/pgbouncer` gets it, as `make test` does"
    return found


@contextlib.contextmanager
def pgbouncer(directory: Path, url: str, mode: str, **settings: object) -> Iterator[str]:
    """A PgBouncer with its defaults and this `pool_mode`; yields the URL of the same database and user behind it."""
    parts, port = urlsplit(url), free_port()
    assert parts.username
    assert parts.password
    directory.mkdir(parents=True, exist_ok=True)
    config, users = directory / "pgbouncer.ini", directory / "userlist.txt"
    users.write_text(f'"{parts.username}" "{unquote(parts.password)}"\n')
    options = {"listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "scram-sha-256"}
    options |= {"auth_file": users, "pool_mode": mode, **settings}
    lines = [f"{name} = {value}" for name, value in options.items()]
    config.write_text(f"[databases]\n* = host=127.0.0.1 port={parts.port}\n[pgbouncer]\n" + "\n".join(lines) + "\n")
    for path in (directory, config, users):
        give_to_service(path)
    server = Process("PgBouncer", [_program(), config], directory / "logs" / "pgbouncer.log", as_service=True)
    server.start()
    try:
        wait_until(lambda: "process up" in server.log.read_text(), "PgBouncer listens")
        yield url.replace(f":{parts.port}/", f":{port}/")
    finally:
        server.stop()
