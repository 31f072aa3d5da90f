"""What happens to PostgreSQL and to the way there."""

import contextlib
import os
import random
import signal
from collections.abc import Iterator

from tests.acceptance.chaos.disk import filled
from tests.acceptance.chaos.fault import fault, link_faults
from tests.acceptance.chaos.stack import Stack, start_again
from tests.until import wait_until

_OF_PROGRAMS = "FROM pg_stat_activity WHERE application_name IN ('fleet-bridge', 'fleet-keeper')"
_CUT_SESSIONS = f"SELECT pg_terminate_backend(pid) {_OF_PROGRAMS}"
_BEYOND_COMMAND_TIMEOUT_S = 2.0


@fault("postgres-immediate-stop")
def immediate_stop(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.postgres.process.send(signal.SIGQUIT)
    wait_until(lambda: not stack.postgres.process.running, "PostgreSQL stops")
    yield
    start_again(stack.postgres)


@fault("postgres-backend-kill")
def backend_kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The server cuts every session and recovers from its log."""
    pids = stack.sql(f"SELECT pid {_OF_PROGRAMS}").split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    stack.kills += len(pids)
    yield
    wait_until(stack.postgres.ready, "PostgreSQL has recovered")


@fault("postgres-postmaster-kill")
def postmaster_kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.postgres.process.kill()
    stack.kills += 1
    yield
    start_again(stack.postgres)


@fault("postgres-restart")
def restart(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.postgres.stop()
    start_again(stack.postgres)
    yield


@fault("postgres-read-only")
def read_only(stack: Stack, rng: random.Random) -> Iterator[None]:
    """What a client meets after a failover: its session is cut, and the server takes no writes."""
    stack.postgres.sql("ALTER DATABASE chaos SET default_transaction_read_only = on")
    stack.postgres.sql(_CUT_SESSIONS)
    yield
    stack.postgres.sql("ALTER DATABASE chaos RESET default_transaction_read_only")


@fault("postgres-locked-table", hold_s=_BEYOND_COMMAND_TIMEOUT_S)
def locked_table(stack: Stack, rng: random.Random) -> Iterator[None]:
    table = rng.choice(["vehicle_telemetry_history", "meter_live_status", "rejected_message"])
    with stack.locked(table, "ACCESS EXCLUSIVE"):
        yield


@fault("postgres-disk-full", hold_s=1.5)
def disk_full(stack: Stack, rng: random.Random) -> Iterator[None]:
    with filled(stack.disk):
        yield


@fault("postgres-connection-limit")
def connection_limit(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.postgres.sql("ALTER DATABASE chaos CONNECTION LIMIT 0")
    stack.postgres.sql(_CUT_SESSIONS)
    yield
    stack.postgres.sql("ALTER DATABASE chaos CONNECTION LIMIT -1")


@fault("postgres-commit-answer-cut")
def commit_answer_cut(stack: Stack, rng: random.Random) -> Iterator[None]:
    """Committed, and the bridge never hears of it: by COMMIT, or by the one statement that stores a few readings."""
    words = rng.choice((b"COMMIT", b"-V"))  # the latter is in the name of a vehicle
    stack.database_link.cut_answer_to(words)
    yield
    stack.database_link.heal()


link_faults("postgres-link", lambda stack: [stack.database_link], _BEYOND_COMMAND_TIMEOUT_S, most_s=0.3)


@fault("postgres-refuses-rejects", hold_s=1.5, alone=True)
def refuses_rejects(stack: Stack, rng: random.Random) -> Iterator[None]:
    """Rejects that cannot be written: nothing of their batch is acknowledged, and no program starts meanwhile."""
    stack.sql("REVOKE INSERT ON reject_id FROM fleet")
    yield
    stack.sql("GRANT INSERT ON reject_id TO fleet")
