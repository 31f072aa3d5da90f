"""A streaming replica of a server of the tests."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bridge.store.migrate import migrate
from local.postgres import LOGINS, Postgres, binary
from local.process import confine, give_to_service
from local.replica import OF_PRIMARY, Replica


class Pair(NamedTuple):
    """A primary and its replica."""

    primary: Postgres
    replica: Postgres

    def url(self, user: str = "fleet") -> str:
        """A URL of the database that names both."""
        return both(self.primary, self.replica, "fleet", user)


@contextlib.contextmanager
def migrated_pair(directory: Path) -> Iterator[Pair]:
    """A primary with a migrated database and the logins of the programs, and its replica."""
    primary = Postgres(directory / "primary" / "server", settings={**OF_PRIMARY, "shared_buffers": "64MB"})
    primary.start()
    try:
        primary.ensure_database("fleet", "fleet")
        for login, groups in LOGINS.items():
            primary.ensure_login(login, groups)
        asyncio.run(migrate(primary.url("fleet", "fleet")))
        replica = new_replica(primary, directory / "replica" / "server")
        try:
            yield Pair(primary, replica)
        finally:
            replica.stop()
    finally:
        primary.stop()


def new_replica(primary: Postgres, directory: Path) -> Replica:
    """A server that replays what the primary writes, started. The caller stops it."""
    replica = Replica(directory, primary, settings={"shared_buffers": "64MB"})
    replica.start()
    return replica


def copy_primary(primary: Postgres, directory: Path, url: str) -> None:
    """Make the new directory of a replica, which gets what the primary writes from this URL. It has the same logins."""
    directory.mkdir(parents=True)
    for name in (path for path in primary.directory.glob("password*")):
        (directory / name.name).write_bytes(name.read_bytes())
        give_to_service(directory / name.name)
    give_to_service(directory)
    command = [*confine(signal.SIGTERM, as_service=True), binary("pg_basebackup"), "--checkpoint=fast", "-R"]
    command += ["-X", "stream", "-d", url, "-D", str(directory / "data")]
    copied = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))
    assert copied.returncode == 0, copied.stderr


def require_standby(primary: Postgres, names: str) -> None:
    """Let commits wait for the standbys of these names: `*` for any one, nothing for none."""
    primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    primary.sql("SELECT pg_reload_conf()")


def promote(replica: Postgres) -> None:
    """Make it accept writes, and wait until it does."""
    assert replica.sql("SELECT pg_promote()") == "t"


def both(primary: Postgres, replica: Postgres, database: str, user: str) -> str:
    """A URL that names both servers."""
    address = f"127.0.0.1:{primary.port}"
    return primary.url(database, user).replace(address, f"{address},127.0.0.1:{replica.port}")
