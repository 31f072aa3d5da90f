"""The fleet's certificate authority: CA, broker certificate, device certificates and revocation list.

Keys are P-256: fast on a meter's CPU, and ten thousand are generated in seconds.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mosquitto.device import LONGEST_COMMON_NAME, BadDevice, Device

_CA_LIFE = timedelta(days=20 * 365)
_CLOCK_SKEW = timedelta(hours=1)  # a device's clock may be behind that of the CA when it receives its first certificate


class Authority(NamedTuple):
    """The CA's key and certificate."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate


class Issued(NamedTuple):
    """A new key with its certificate, both as PEM."""

    key: bytes
    certificate: bytes
    serial: int
    not_after: datetime


def create() -> tuple[bytes, bytes]:
    """A new CA: its key and its certificate, as PEM."""
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)
    usage = _usage(digital_signature=False, key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(_name("fleet CA"), key, now, now + _CA_LIFE)
        .issuer_name(_name("fleet CA"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def load(key: bytes, certificate: bytes) -> Authority:
    """The CA from its PEM files. Raises `ValueError` if they are not a key and its certificate."""
    loaded = serialization.load_pem_private_key(key, password=None)
    if not isinstance(loaded, EllipticCurvePrivateKey) or not belong_together(key, certificate):
        raise ValueError("the certificate is that of another key")
    return Authority(loaded, x509.load_pem_x509_certificate(certificate))


def belong_together(key: bytes, certificate: bytes) -> bool:
    """Whether the PEM files are a key and its certificate."""
    try:
        loaded = serialization.load_pem_private_key(key, password=None)
        return x509.load_pem_x509_certificate(certificate).public_key() == loaded.public_key()
    except ValueError:
        return False


def hosts_of(certificate: bytes) -> list[str]:
    """The host names and addresses in a certificate. Raises `ValueError` if it is none."""
    try:
        names = x509.load_pem_x509_certificate(certificate).extensions
        found = names.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def issue_server(authority: Authority, hosts: Iterable[str], life: timedelta) -> Issued:
    """The broker's certificate for these host names and addresses."""
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    return _issue(authority, "fleet broker", life, ExtendedKeyUsageOID.SERVER_AUTH, names)


def issue_device(authority: Authority, device: Device, life: timedelta) -> Issued:
    """A device's certificate; valid for clients only, so that it cannot be used as the broker's. Raises `BadDevice`."""
    if len(str(device)) > LONGEST_COMMON_NAME:
        raise BadDevice(f"{device}: a certificate's common name has at most 64 characters; use --password")
    return _issue(authority, str(device), life, ExtendedKeyUsageOID.CLIENT_AUTH, None)


def revocation_list(authority: Authority, revoked: Iterable[tuple[int, datetime]]) -> bytes:
    """The CRL of these serials, as PEM.

    It is valid as long as the CA: the broker reads it from its own disk, and OpenSSL refuses every client once the list
    has expired.
    """
    entries = [
        x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build() for serial, at in revoked
    ]
    builder = x509.CertificateRevocationListBuilder(
        authority.certificate.subject, datetime.now(UTC), authority.certificate.not_valid_after_utc, [], entries
    )
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _issue(
    authority: Authority,
    name: str,
    life: timedelta,
    purpose: x509.ObjectIdentifier,
    names: x509.SubjectAlternativeName | None,
) -> Issued:
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)
    not_after = min(now + life, authority.certificate.not_valid_after_utc)
    builder = (
        _builder(_name(name), key, now, not_after)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Issued(_pem(key), pem, certificate.serial_number, not_after)


def _builder(
    subject: x509.Name, key: EllipticCurvePrivateKey, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, not_after) - _CLOCK_SKEW)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
