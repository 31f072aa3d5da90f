"""A streaming replica of a server of the tests."""

import os
import signal
import subprocess
from pathlib import Path

from local.postgres import Postgres, binary
from local.process import confine, give_to_service


def new_replica(primary: Postgres, directory: Path) -> Postgres:
    """A server that replays what the primary writes, started; it has the primary's logins. The caller stops it."""
    directory.mkdir(parents=True)
    for name in (path for path in primary.directory.glob("password*")):
        (directory / name.name).write_bytes(name.read_bytes())
        give_to_service(directory / name.name)
    give_to_service(directory)
    command = [*confine(signal.SIGTERM, as_service=True), binary("pg_basebackup"), "--checkpoint=fast", "-R"]
    command += ["-X", "stream", "-d", primary.url(), "-D", str(directory / "data")]
    copied = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))
    assert copied.returncode == 0, copied.stderr
    replica = Postgres(directory, settings={"shared_buffers": "64MB"})
    replica.start()
    return replica


def promote(replica: Postgres) -> None:
    """Make it accept writes, and wait until it does."""
    assert replica.sql("SELECT pg_promote()") == "t"


def both(primary: Postgres, replica: Postgres, database: str, user: str) -> str:
    """A URL that names both servers."""
    address = f"127.0.0.1:{primary.port}"
    return primary.url(database, user).replace(address, f"{address},127.0.0.1:{replica.port}")
