"""The platform under test with a synchronous standby beside PostgreSQL."""

import shutil
from typing import NamedTuple

from local.postgres import Postgres
from tests.acceptance.chaos.link import Link
from tests.acceptance.chaos.stack import POSTGRES_SETTINGS, Stack, start_again, through
from tests.replicas import copy_primary, promote, require_standby
from tests.until import wait_until

_IN_SYNC = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class Server(NamedTuple):
    """A server, and the ways to it."""

    postgres: Postgres
    link: Link
    """From the programs."""
    feed: Link
    """From its standby."""


class PairStack(Stack):
    """The programs know both servers, and find the primary by themselves. The standby is the API's replica."""

    without = frozenset({"postgres-disk-full"})

    def _start_database(self) -> None:
        # The log must reach back to where a standby was cut off.
        settings = {**POSTGRES_SETTINGS, "wal_keep_size": "512MB"}
        servers = [Postgres(self.directory / name / "server", settings=settings) for name in "ab"]
        for server in servers:
            self._opened.callback(server.process.stop)
        self._a, self._b = (Server(one, self._link(one.port), self._link(one.port)) for one in servers)
        self._lead(self._a, self._b)
        self.postgres.start()
        self._make_database()
        self._copy_primary()

    @property
    def _database(self) -> str:
        return self._a.postgres.url("chaos", "fleet").replace(
            f"127.0.0.1:{self._a.postgres.port}", f"127.0.0.1:{self._a.link.port},127.0.0.1:{self._b.link.port}"
        )

    @property
    def _env(self) -> dict[str, str]:
        return {**super()._env, "FLEET_READ_DATABASE_URL": self._database}

    def _lead(self, primary: Server, standby: Server) -> None:
        self.primary, self.standby = primary, standby
        self.postgres, self.database_link = primary.postgres, primary.link

    def _copy_primary(self) -> None:
        """Make the standby from the primary, and let commits wait for it."""
        primary, standby = self.primary.postgres, self.standby.postgres
        copy_primary(primary, standby.directory, through(primary.url(), self.primary.feed))
        standby.start()
        require_standby(primary, "*")
        self.wait_for_standby()

    def wait_for_standby(self) -> None:
        """Wait until the primary's commits are confirmed by the standby again."""
        wait_until(lambda: self.sql(_IN_SYNC) == "1", "the standby is in sync")

    def fail_over(self) -> Server:
        """kill -9 of the primary, and promote the standby; returns the old primary, started again.

        It waits for no standby any more: nothing but its timeline keeps the programs from it.
        """
        old = self.primary
        old.postgres.process.kill()
        self.kills += 1
        self._lead(self.standby, old)
        promote(self.postgres)
        old.feed.heal()
        start_again(old.postgres)
        require_standby(old.postgres, "")
        return old

    def rebuild_standby(self) -> None:
        """Make a standby of the old primary."""
        old = self.standby.postgres
        old.stop()
        shutil.rmtree(old.directory)
        self._copy_primary()
