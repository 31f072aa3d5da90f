"""The provisioning operations: create the CA, and add, rotate and revoke credentials of devices.

The registry commits before a credential is written, so every certificate can be revoked. The broker's files are
generated after that, under the registry's lock, so concurrent commands cannot overwrite each other's result.
"""

import contextlib
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

from bridge.errors import Misconfigured
from bridge.private_file import create_private, make_private_directory, write_private
from bridge.progress import Advance, Silent, Stages
from mosquitto import authority, broker, password_hash, registry
from mosquitto.authority import Authority, Issued
from mosquitto.device import BadDevice, Device
from mosquitto.directory import Directory, accounts
from mosquitto.registry import Credential

_CA_REMEDY = (
    "restore it from a backup (the certificate is also in the directory of each device); without the key, create a new "
    "directory with `ca init` and provision every device again"
)
_REGISTRY_REMEDY = (
    "restore it from a backup; without one, create a new directory with `ca init` and provision every device again, "
    "because the revoked certificates are unknown"
)
_SERVER_LIFE = timedelta(days=5 * 365)
T = TypeVar("T")


def initialise(directory: Directory, hosts: Sequence[str]) -> bool:
    """Create the CA, the broker's certificate, the accounts and the first broker files, once.

    True when it created the CA. An existing one is never replaced, because every device trusts it.
    """
    make_private_directory(directory.broker)
    made = not directory.ca_key.exists() and not _was_used(directory)
    if made:
        key, certificate = authority.create()
        write_private(directory.ca_certificate, certificate)
        write_private(directory.ca_key, key)
    _authority(directory)
    if not _server_is_whole(directory):
        renew_server(directory, hosts)
    create_private(directory.control_url, "mqtt://127.0.0.1:1884")
    accounts(directory)
    refresh(directory)
    return made


def _was_used(directory: Directory) -> bool:
    """Whether a CA was complete here: the broker's certificate and the registry are written after its key."""
    return directory.server_certificate.exists() or directory.registry.exists()


def _server_is_whole(directory: Directory) -> bool:
    """Whether the broker's key and certificate fit. A power failure during a renewal may leave one old and one new."""
    try:
        return authority.belong_together(directory.server_key.read_bytes(), directory.server_certificate.read_bytes())
    except FileNotFoundError:
        return False


def server_hosts(directory: Directory) -> list[str]:
    """The host names and addresses in the broker's certificate; none if there is no certificate that can be read."""
    try:
        return authority.hosts_of(directory.server_certificate.read_bytes())
    except (FileNotFoundError, ValueError):
        return []


def ensure_hosts(directory: Directory, hosts: Sequence[str]) -> bool:
    """Renew the broker's certificate if it lacks one of these names; it keeps those that it has. True if it did."""
    present = server_hosts(directory)
    missing = [host for host in hosts if host not in present]
    if missing:
        renew_server(directory, [*present, *missing])
    return bool(missing)


def renew_server(directory: Directory, hosts: Sequence[str]) -> None:
    """Create a new key and certificate for the broker; after a reload it uses them for new connections."""
    issued = authority.issue_server(_authority(directory), hosts, _SERVER_LIFE)
    write_private(directory.server_key, issued.key)
    write_private(directory.server_certificate, issued.certificate)


@contextlib.contextmanager
def registered(directory: Directory) -> Iterator[sqlite3.Connection]:
    """The registry in one transaction. Raises `Misconfigured` if it is damaged, or missing although it was used.

    An empty one in its place would lock out every device with a password and admit the revoked certificates.
    """
    was_used = (directory.broker / "crl.pem").exists()
    if was_used and not (directory.registry.exists() and directory.registry.stat().st_size):
        raise Misconfigured(f"{directory.registry} is missing or empty: {_REGISTRY_REMEDY}")
    with registry.registry(directory.registry) as db:
        yield db


def refresh(directory: Directory) -> None:
    """Generate the broker's files from the registry."""
    with registered(directory) as db:
        broker.write_files(directory, _authority(directory), db)


def add_certificates(
    directory: Directory, devices: Sequence[Device], life: timedelta, stages: Stages | None = None
) -> None:
    """Provision new devices with certificates: all, or none if one is invalid. Raises `BadDevice`."""
    issuer, stages = _authority(directory), stages or Silent()
    devices_issued = _counted(devices, stages.stage("certificates", len(devices)))
    issued = [(device, authority.issue_device(issuer, device, life)) for device in devices_issued]
    _add(directory, [(device, _credential(one)) for device, one in issued])
    for device, one in _counted(issued, stages.stage("files", len(issued))):
        _hand_out_certificate(directory, device, one)


def add_passwords(directory: Directory, devices: Sequence[Device], stages: Stages | None = None) -> None:
    """Provision new devices with passwords: all, or none if one is invalid. Raises `BadDevice`."""
    stages = stages or Silent()
    made = [(device, secrets.token_urlsafe(24)) for device in devices]
    hashed = _counted(made, stages.stage("passwords", len(made)))
    _add(directory, [(device, Credential(password_hash=password_hash(password))) for device, password in hashed])
    for device, password in _counted(made, stages.stage("files", len(made))):
        _hand_out_password(directory, device, password)


def _counted(items: Iterable[T], advance: Advance) -> Iterator[T]:
    """The items; each counts as done when the next one is wanted."""
    for item in items:
        yield item
        advance(1)


def rotate(directory: Directory, device: Device, life: timedelta, *, password: bool, keep_old: bool) -> None:
    """Create a new credential for a device that replaces the old ones, or is added to them with `keep_old`."""
    issuer, secret = _authority(directory), secrets.token_urlsafe(24)
    issued = None if password else authority.issue_device(issuer, device, life)
    credential = Credential(password_hash=password_hash(secret)) if issued is None else _credential(issued)
    with registered(directory) as db:
        if not keep_old:
            registry.revoke_credentials(db, [device])
        registry.add(db, [(device, credential)], "rotate")
        broker.write_files(directory, issuer, db)
    if issued is None:
        _hand_out_password(directory, device, secret)
    else:
        _hand_out_certificate(directory, device, issued)


def revoke(directory: Directory, devices: Sequence[Device]) -> None:
    """Revoke all credentials of the devices; `broker.reload` and `disconnect` put this into effect."""
    with registered(directory) as db:
        registry.revoke(db, devices)
        broker.write_files(directory, _authority(directory), db)


def _add(directory: Directory, credentials: Sequence[tuple[Device, Credential]]) -> None:
    with registered(directory) as db:
        _refuse_known(registry.live(db, [device for device, _ in credentials]))
        registry.add(db, credentials, "add")
        broker.write_files(directory, _authority(directory), db)


def _refuse_known(known: Sequence[Device]) -> None:
    if known:
        more = f" and {len(known) - 1} more" if len(known) > 1 else ""
        raise BadDevice(f"{known[0]}{more}: already provisioned; use rotate for a new credential, revoke to remove it")


def require_ca(directory: Directory) -> None:
    """Raise `BadDevice` with the command that creates a CA if the directory never had one."""
    if not directory.ca_key.exists() and not _was_used(directory):
        raise BadDevice(f"{directory.root}: there is no CA yet; run `python -m mosquitto ca init {directory.root}`")


def _authority(directory: Directory) -> Authority:
    """The CA. Raises `BadDevice` if there never was one, `Misconfigured` if it is damaged: devices trust it."""
    require_ca(directory)
    files = f"{directory.ca_key}, {directory.ca_certificate}"
    try:
        return authority.load(directory.ca_key.read_bytes(), directory.ca_certificate.read_bytes())
    except OSError as error:
        raise Misconfigured(f"{error.filename} cannot be read ({error.strerror}): {_CA_REMEDY}") from None
    except (ValueError, TypeError) as error:
        raise Misconfigured(f"{files} are not a CA's key and its certificate ({error}): {_CA_REMEDY}") from None


def _credential(issued: Issued) -> Credential:
    return Credential(serial=issued.serial, not_after=issued.not_after)


def _hand_out_certificate(directory: Directory, device: Device, issued: Issued) -> None:
    ca = directory.ca_certificate.read_bytes()
    _hand_out(directory, device, {"device.key": issued.key, "device.crt": issued.certificate, "ca.crt": ca})


def _hand_out_password(directory: Directory, device: Device, password: str) -> None:
    ca = directory.ca_certificate.read_bytes()
    _hand_out(directory, device, {"password": password.encode(), "ca.crt": ca})


def _hand_out(directory: Directory, device: Device, contents: dict[str, bytes]) -> None:
    """Write a device's credentials to its directory."""
    for name, content in contents.items():
        write_private(directory.credentials(str(device)) / name, content)


def find(directory: Directory, wanted: Iterable[tuple[str | None, str]]) -> list[Device]:
    """The provisioned devices of these kinds (None: any kind) and ids. Raises `BadDevice`."""
    with registered(directory) as db:
        return [registry.find(db, kind, id_) for kind, id_ in wanted]
