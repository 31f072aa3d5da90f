"""The certificate of a running API is replaced without a restart, and only modern ciphers are served."""

import os
import re
import signal
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from bridge.private_file import write_private
from mosquitto import authority
from mosquitto.authority import Issued
from tests.integration.api.server import Api
from tests.until import wait_until

StartApi = Callable[..., Api]
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ca() -> authority.Authority:
    return authority.load(*authority.create())


def renewed(directory: Path, ca: authority.Authority, days: int) -> Issued:
    issued = authority.issue_server(ca, ["127.0.0.1"], timedelta(days=days))
    write_private(directory / "key.pem", issued.key)
    write_private(directory / "cert.pem", issued.certificate)
    return issued


def served(api: Api, ciphers: str = "DEFAULT", newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> int:
    """The serial number of the certificate that a new connection gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, newest
    context.set_ciphers(ciphers)
    with api.socket() as plain, context.wrap_socket(plain) as connection:
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


async def expiry_s(api: Api, token: str) -> float:
    async with api.client(token, verify=False) as client:
        text = (await client.get("/metrics")).text
    found = re.search(r"^fleet_certificate_expiry_timestamp_seconds\{.*\} (.*)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("asked", [True, False], ids=["SIGHUP", "changed files"])
async def test_new_certificate_is_served_without_a_restart(
    start_api: StartApi, token: str, tmp_path: Path, ca: authority.Authority, asked: bool
) -> None:
    before = renewed(tmp_path, ca, days=1)
    api = start_api(tls_cert_file=tmp_path / "cert.pem", tls_key_file=tmp_path / "key.pem")
    assert served(api) == before.serial
    async with api.client(token, verify=False) as open_before:
        assert (await open_before.get("/healthz")).status_code == 200
        after = renewed(tmp_path, ca, days=30)
        if asked:
            assert api.process.pid is not None
            os.kill(api.process.pid, signal.SIGHUP)
        wait_until(lambda: served(api) == after.serial, "the new certificate is served")
        assert (await open_before.get("/healthz")).status_code == 200
    wait_until(lambda: "certificate reloaded" in api.log, "the log says so")
    assert await expiry_s(api, token) == pytest.approx(after.not_after.timestamp(), abs=1)


async def test_certificate_that_cannot_be_used_does_not_replace_the_old_one(
    start_api: StartApi, token: str, tmp_path: Path, ca: authority.Authority
) -> None:
    before = renewed(tmp_path, ca, days=1)
    api = start_api(tls_cert_file=tmp_path / "cert.pem", tls_key_file=tmp_path / "key.pem")
    foreign = authority.issue_server(ca, ["127.0.0.1"], timedelta(days=9))
    write_private(tmp_path / "cert.pem", foreign.certificate)  # of another key
    assert api.process.pid is not None
    os.kill(api.process.pid, signal.SIGHUP)
    wait_until(lambda: "certificate not reloaded" in api.log, "the log says so")
    assert served(api) == before.serial
    assert await expiry_s(api, token) == pytest.approx(before.not_after.timestamp(), abs=1)
    write_private(tmp_path / "key.pem", foreign.key)
    wait_until(lambda: served(api) == foreign.serial, "the certificate is served when its key is there")


async def test_hangup_does_not_end_an_api_without_tls(start_api: StartApi) -> None:
    api = start_api()
    assert api.process.pid is not None
    os.kill(api.process.pid, signal.SIGHUP)
    wait_until(lambda: "SIGHUP ignored" in api.log, "the log says so")
    async with api.client() as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_only_modern_ciphers_are_served(start_api: StartApi, tmp_path: Path, ca: authority.Authority) -> None:
    renewed(tmp_path, ca, days=1)
    api = start_api(tls_cert_file=tmp_path / "cert.pem", tls_key_file=tmp_path / "key.pem")
    v12 = ssl.TLSVersion.TLSv1_2
    for modern in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"):
        served(api, modern, v12)
    for old in ("ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0", "ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0"):
        with pytest.raises((ssl.SSLError, ConnectionError, socket.timeout)):
            served(api, old, v12)
