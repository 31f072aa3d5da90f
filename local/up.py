"""`make up`: the platform in the foreground until Ctrl-C, with a file that exists while it is ready.

`<dir>/env` exists from the moment when all parts are ready until they stop: it is removed before the first part starts
and before the first one stops. A program that is killed meanwhile is started again. After a `kill -9` of this process
the servers end on their own, and the next start waits until they have.
"""

import contextlib
import dataclasses
import fcntl
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.private_file import make_private_directory, write_private
from bridge.settings.group import variable
from bridge.settings.local import LocalSettings
from local.live import LiveLine
from local.parts import Parts
from local.platform import Platform
from local.ports import Ports, PortTaken, free_port, reserve
from local.process import wait_for_orphans
from local.streams import StreamPlatform

# The lines that are printed have at most 80 columns, so that a terminal does not wrap them; paths are the exception.
_TOPIC = "$FLEET_MQTT_URL/fleet/vehicle/EV_002/telemetry"
_READING = """'{"vehicleId": "EV_002", "soc": 72.5, "kwhDeliveredDc": 4.25,
    "batteryTemp": 38.6, "timestamp": "'$(date -u +%FT%TZ)'"}'"""


class AlreadyRunning(Misconfigured):
    """Another `make up` uses this directory."""


def up(settings: LocalSettings, stream: str | None = None, replicas: int = 0) -> None:
    """Run the whole platform, with a broker or a `stream`, until SIGINT or SIGTERM.

    When a part fails or ends, report it, stop and exit with 1.
    """
    directory = _private(settings.local_dir)
    with _only_one(directory), _stopped_by_signals():
        env_file = directory / "env"
        env_file.unlink(missing_ok=True)
        _say(f"starting in {directory} ...")
        wait_for_orphans(directory / "logs")
        with _platform(directory, settings, stream, replicas) as platform:
            try:
                platform.start()
                write_private(env_file, _assignments(platform.addresses))
                _introduce(platform)
                _watch(platform)
            except RuntimeError as error:
                sys.stderr.write(f"\n{error}\n")  # before the stop, which takes a while
                raise SystemExit(1) from None
            finally:
                _ignore_signals()
                env_file.unlink(missing_ok=True)


def _platform(directory: Path, settings: LocalSettings, stream: str | None, replicas: int) -> Platform | StreamPlatform:
    ports = _ports(settings)
    if stream is not None:
        return StreamPlatform(directory, ports, settings.sim_vehicles, replicas=replicas)
    return Platform(
        directory,
        ports,
        settings.sim_vehicles,
        tls_address=settings.mqtt_tls_address,
        hosts=settings.hosts,
        replicas=replicas,
    )


def _private(directory: Path) -> Path:
    directory = directory.resolve()
    try:
        make_private_directory(directory)
    except OSError as error:
        raise Misconfigured(f"FLEET_LOCAL_DIR: {error}") from None
    return directory


def _ports(settings: LocalSettings) -> Ports:
    """The ports of this run; prints which defaults are in use. Raises `PortTaken` for configured ports in use."""
    wanted = {name: getattr(settings, name) for name in (f"{field.name}_port" for field in dataclasses.fields(Ports))}
    taken = {name: port for name, port in wanted.items() if not reserve(port)}
    if given := taken.keys() & settings.model_fields_set:
        raise PortTaken({variable(name): port for name, port in taken.items() if name in given})
    chosen = {name: free_port() for name in taken}
    for name, port in chosen.items():
        _say(f"port {taken[name]} is in use by another program: using {port}\n  ({variable(name)} sets it)")
    return Ports(*(wanted | chosen).values())


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, which the kernel releases when this process ends in any way."""
    try:
        lock = (directory / "lock").open("a+")
    except PermissionError:
        raise Misconfigured(f"{directory} belongs to another user; choose another FLEET_LOCAL_DIR") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read()
            raise AlreadyRunning(f"the platform is already running in {directory} (process {holder})") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Leave the block on Ctrl-C or SIGTERM without an error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        yield


def _ignore_signals() -> None:
    """Ignore further signals during the stop, so that a second Ctrl-C does not leave running servers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _say("\nstopping ...")


def _assignments(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _introduce(platform: Platform | StreamPlatform) -> None:
    env = _short(platform.directory / "env")
    devices, version = (_broker(platform), "5") if isinstance(platform, Platform) else (_nodes(platform), "311")
    provisioning = _provisioning(platform) if isinstance(platform, Platform) else ""
    ports = platform.ports
    _say(f"""
The platform is ready.
  page         {platform.api.url}/       (sign in with the API key)
  API          {platform.api.url}        (documentation: /docs)
{devices}
  PostgreSQL   postgresql://127.0.0.1:{ports.postgres}/{platform.database}{_replicas(platform)}
  bridge       {platform.bridge.url}/metrics
  keeper       {platform.keeper.url}/metrics
  API key      {_short(platform.api_key_file)}
  for a shell  {env}

Try it in another terminal:
  set -a; . {env}; set +a
  mosquitto_pub -V {version} -q 1 -L {_TOPIC} \\
    -m {_READING}
  curl -sS -H "Authorization: Bearer $FLEET_API_KEY" \\
    $FLEET_API_URL/v1/live/vehicles/EV_002
{provisioning}
Ctrl-C stops the platform.
""")


def _broker(platform: Platform) -> str:
    ports = platform.ports
    return f"""\
  MQTT         mqtt://127.0.0.1:{ports.mqtt}        (gateways, simulator; plain text)
  devices      mqtts://localhost:{ports.mqtt_tls}       with a certificate
               mqtts://localhost:{ports.mqtt_password}       with a password"""


def _nodes(platform: StreamPlatform) -> str:
    nodes = [f"mqtt://127.0.0.1:{node.mqtt_port}        (node {node.name})" for node in platform.nats.nodes]
    return "  MQTT 3.1.1   " + "\n               ".join(nodes)


def _replicas(platform: Parts) -> str:
    lines = (f"\n  replica      postgresql://127.0.0.1:{each.port}/{platform.database}" for each in platform.replicas)
    return "".join(lines)


def _provisioning(platform: Platform) -> str:
    return f"""
Provision a device (key and certificate, or with --password a password), see
docs/security.md:
  {_short(Path(sys.executable))} \\
    -m mosquitto device add EV_002 --kind vehicle \\
    --dir {_short(platform.broker.directory)}
"""


def _short(path: Path) -> str:
    """The path for a shell in the current directory: relative if it is below it."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _watch(platform: Parts) -> None:
    """Print the status line until a signal arrives, and start killed programs again, as containers are.

    Raises `RuntimeError` when a server ends, or a program by itself: its next start would end in the same way.
    """
    line = LiveLine(platform, sys.stdout)
    while True:
        for part in platform.ended():
            process = part.process
            if not platform.may_start_again(part):
                end = f"the end of {process.log}:\n{process.log_tail()}"
                raise RuntimeError(f"{process.name} ended with {process.exit_code}; {end}")
            _say(f"\n{process.name} ended with {process.exit_code}; starting it again")
            platform.start_again(part)
        if line.wait():
            line.show()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
