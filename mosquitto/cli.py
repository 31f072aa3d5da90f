"""Command line of provisioning: `python -m mosquitto ca init DIR`, `device add|rotate|revoke|list`."""

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bridge.command_line import VersionOption
from bridge.contract import KIND_OF
from bridge.errors import Misconfigured
from bridge.private_file import write_private
from bridge.progress import on_terminal
from bridge.settings.groups import LogSettings
from bridge.settings.options import option
from bridge.settings.provisioning import ProvisioningSettings
from bridge.startup import configured
from mosquitto import broker, provisioning, registry
from mosquitto.broker import BrokerUnreachable
from mosquitto.device import BadDevice, Device, device, read_csv
from mosquitto.directory import Directory

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Manage the CA, the accounts and the devices of the broker.",
)
ca_app = typer.Typer(no_args_is_help=True, help="The fleet's certificate authority and the broker's certificate.")
device_app = typer.Typer(
    no_args_is_help=True, help="Manage the credentials of devices; a running broker is reloaded immediately."
)
app.add_typer(ca_app, name="ca")
app.add_typer(device_app, name="device")


KindOption = StrEnum("KindOption", {name: name for name in KIND_OF})  # type: ignore[misc]
"""A device's kind on the command line."""


DirArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Private directory of the CA, the devices and the broker's files.")
]
DirOption = Annotated[Path, option(ProvisioningSettings, "mosquitto_dir", "--dir")]
ReloadOption = Annotated[
    str | None,
    typer.Option("--reload-command", help="Command that reloads a remote broker, instead of SIGHUP on this machine."),
]
IdArgument = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="Id of the device, as in its readings; without --csv.")
]
KindChoice = Annotated[KindOption | None, typer.Option("--kind", help="Kind of ID, or of CSV rows without a kind.")]
CsvOption = Annotated[
    Path | None,
    typer.Option("--csv", exists=True, dir_okay=False, help="CSV file of devices with the columns id and kind."),
]
DaysOption = Annotated[int, typer.Option(min=1, help="Validity of the certificate.")]
PasswordOption = Annotated[
    bool,
    typer.Option(
        "--password/--cert", help="Create a password instead of a certificate, for devices without mutual TLS."
    ),
]
_HERE, _LIFE_DAYS = ProvisioningSettings().mosquitto_dir, 5 * 365
HostOption = Annotated[
    list[str] | None, typer.Option("--host", help="Host name or address in the broker's certificate; may be repeated.")
]
_HOSTS = ["localhost", "127.0.0.1", "::1"]


@app.callback()
def begin(_version: VersionOption = False) -> None:
    """Read the settings that every command has."""
    configured(LogSettings)


@ca_app.command("init")
def init(
    directory: DirArgument,
    host: HostOption = None,
    control: Annotated[str, typer.Option(help="URL of an internal listener, used to disconnect devices.")] = "",
) -> None:
    """Create the CA, the broker's certificate and its accounts in a private directory, unless they exist."""
    place = Directory(directory)
    with _in_one_line():
        made = provisioning.initialise(place, host or _HOSTS)
        if control:
            write_private(place.control_url, control)
    print(f"the CA {'was created' if made else 'exists already'}; the broker reads {place.broker}")


@ca_app.command()
def server(directory: DirArgument, host: HostOption = None) -> None:
    """Renew the broker's certificate, before it expires or when its host names change (--host; kept without it)."""
    place = Directory(directory)
    with _explained(place):
        provisioning.renew_server(place, host or provisioning.server_hosts(place) or _HOSTS)
        _tell(place, None, [])


@device_app.command()
def add(
    id_: IdArgument = None,
    kind: KindChoice = None,
    csv: CsvOption = None,
    password: PasswordOption = False,
    days: DaysOption = _LIFE_DAYS,
    directory: DirOption = _HERE,
    reload_command: ReloadOption = None,
) -> None:
    """Provision new devices with a certificate or a password: all of them, or none if one is invalid."""
    place = Directory(directory)
    with _explained(place):
        if (id_ is None) == (csv is None):
            raise BadDevice("specify an ID with --kind, or --csv FILE")
        devices = read_csv(csv, kind) if csv else [device(kind, id_ or "")]
        with on_terminal() as stages:
            if password:
                provisioning.add_passwords(place, devices, stages)
            else:
                provisioning.add_certificates(place, devices, timedelta(days=days), stages)
        # A new certificate needs no reload, except to remove the denial of a previously revoked device.
        _tell(place, reload_command, [])
    where = place.credentials(str(devices[0])) if id_ else place.handed_out
    print(f"{len(devices)} provisioned; credentials are in {where}")


@device_app.command()
def rotate(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the device, as in its readings.")],
    kind: KindChoice = None,
    password: PasswordOption = False,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Keep the old certificate valid until the next rotate or revoke.")
    ] = (False),
    days: DaysOption = _LIFE_DAYS,
    directory: DirOption = _HERE,
    reload_command: ReloadOption = None,
) -> None:
    """Create a new credential for a device and revoke the old one, immediately or with a later rotate or revoke."""
    place = Directory(directory)
    with _explained(place):
        (found,) = provisioning.find(place, [(kind, id_)])
        provisioning.rotate(place, found, timedelta(days=days), password=password, keep_old=keep_old)
        _tell(place, reload_command, [] if keep_old else [found])
    print(f"{found} rotated; credentials are in {place.credentials(str(found))}")


@device_app.command()
def revoke(
    id_: IdArgument = None,
    kind: KindChoice = None,
    csv: CsvOption = None,
    directory: DirOption = _HERE,
    reload_command: ReloadOption = None,
) -> None:
    """Revoke devices: they are disconnected immediately and cannot connect again."""
    place = Directory(directory)
    with _explained(place):
        if (id_ is None) == (csv is None):
            raise BadDevice("specify an ID, or --csv FILE")
        found = provisioning.find(place, read_csv(csv, kind) if csv else [(kind, id_ or "")])
        provisioning.revoke(place, found)
        _tell(place, reload_command, found)
    print(f"{len(found)} revoked")


@device_app.command("list")
def list_(directory: DirOption = _HERE) -> None:
    """List every device that is or was provisioned, one JSON object a line."""
    place = Directory(directory)
    with _explained(place), provisioning.registered(place) as db:
        for row in registry.listed(db):
            print(json.dumps({"name": str(row.device), **dict(zip(row._fields[1:], row[1:], strict=True))}))


def _tell(place: Directory, reload_command: str | None, cut_off: Sequence[Device]) -> None:
    """Make the broker reload its files, then close the connections of these devices."""
    if reload_command is not None:
        _reload_by(reload_command)
    elif not broker.reload(place):
        print("no broker with these files runs on this machine: they take effect at its start", file=sys.stderr)
        return
    broker.disconnect(place, cut_off)


def _reload_by(command: str) -> None:
    """Run the reload command. Raises `BrokerUnreachable` if it fails."""
    try:
        subprocess.run(shlex.split(command), check=True)  # noqa: S603
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise BrokerUnreachable(f"the change is saved, but the broker has not been told: {error}") from error


@contextlib.contextmanager
def _explained(place: Directory) -> Iterator[None]:
    """Report a missing CA, and errors in this context that an operator can correct, as one line."""
    with _in_one_line():
        provisioning.require_ca(place)
        yield


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """Report errors that an operator can correct as one line, and exit with 1."""
    try:
        yield
    except (BadDevice, BrokerUnreachable, Misconfigured, OSError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
