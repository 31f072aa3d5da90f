"""A streaming replica of the local PostgreSQL: it has a copy of the data, and replays what the primary writes."""

import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bridge.private_file import write_private
from local.postgres import Postgres, binary
from local.process import confine, give_to_service

SETTINGS = {
    # Without it the primary removes rows that a query on the replica still reads, and the query is cancelled.
    "hot_standby_feedback": "on",
    # A query that stands in the way of replaying is cancelled after this time; until then the replica lags.
    "max_standby_streaming_delay": "3s",
}
"""The settings of a replica besides those of every server; docker-compose.yml has the same."""
OF_PRIMARY = {"wal_keep_size": "1GB"}
"""What a primary keeps of its log for replicas that were away."""
_FOLLOWING = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"
_CATCH_UP_S = 60.0
_SIGNAL = "standby.signal"
_CONF = "primary.conf"
"""Where the primary is: a file of its own, because its port may be another one at the next start."""


class Replica(Postgres):
    """A replica in one directory. Its logins are those of the primary, which must run when it is started."""

    name = "PostgreSQL replica"

    def __init__(self, directory: Path, primary: Postgres, *, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, settings={**SETTINGS, **(settings or {})})
        self._primary = primary
        self._secrets = primary.directory
        self._passfile = directory / "passfile"

    def start(self) -> None:
        """Start it and wait until it follows the primary. If its copy can no longer do so, another one is made.

        One that was promoted is only started.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        give_to_service(self.directory)
        self._write_private(self._passfile, f"*:*:*:postgres:{self._password}\n")
        if self._data.exists() and not (self._data / _SIGNAL).exists():
            return super().start()
        try:
            self._follow()
        except RuntimeError:
            if self.process.running:
                self.stop()
            shutil.rmtree(self._data)
            self._follow()

    def _follow(self) -> None:
        if self._data.exists():
            self._write_conf(self._data)
        super().start()
        self.process.wait_until(lambda: self.sql(_FOLLOWING) == "1", timeout_s=_CATCH_UP_S)

    def _initialise(self) -> None:
        """Copy the primary into a temporary directory, which is renamed when it is complete."""
        new = self.directory / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        command = [*confine(signal.SIGTERM, as_service=True), binary("pg_basebackup"), "--checkpoint=fast"]
        command += ["-X", "stream", "-d", self._conninfo, "-D", str(new)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode:
            raise RuntimeError(f"pg_basebackup failed:\n{result.stderr}")
        self._write_private(new / _SIGNAL, "")
        with (new / "postgresql.conf").open("a") as conf:
            conf.write(f"include '{_CONF}'\n")
        self._write_conf(new)
        new.rename(self._data)

    @property
    def _conninfo(self) -> str:
        return f"host=127.0.0.1 port={self._primary.port} user=postgres passfile='{self._passfile}'"

    def _write_conf(self, data: Path) -> None:
        quoted = self._conninfo.replace("'", "''")
        self._write_private(data / _CONF, f"primary_conninfo = '{quoted}'\n")

    def _write_private(self, path: Path, text: str) -> None:
        write_private(path, text)
        give_to_service(path)
