"""The database by TLS, with the server's name verified according to the URL.

The embedded PostgreSQL is built without TLS, so a proxy of the test terminates it, as PgBouncer or stunnel would.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from bridge.delivery import Kept
from bridge.store.postgres import PostgresStore
from mosquitto import authority
from tests.readings import vehicle

pytestmark = pytest.mark.anyio
_SSL_REQUEST_LENGTH = 8


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    target.close()


@pytest.fixture
async def tls_port(database_url: str, tmp_path: Path) -> AsyncIterator[int]:
    """A TLS port of the database, with a certificate for localhost of the CA in `ca.crt`."""
    key, certificate = authority.create()
    issued = authority.issue_server(authority.load(key, certificate), ["localhost"], timedelta(days=1))
    contents = {"ca.crt": certificate, "server.key": issued.key, "server.crt": issued.certificate}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    tasks: set[asyncio.Task[None]] = set()

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(_SSL_REQUEST_LENGTH)
        writer.write(b"S")
        with contextlib.suppress(OSError):
            await writer.start_tls(context)
            behind = await asyncio.open_connection("127.0.0.1", urlsplit(database_url).port)
            for copy in (_copy(reader, behind[1]), _copy(behind[0], writer)):
                tasks.add(asyncio.create_task(copy))

    server = await asyncio.start_server(front, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def tls_url(database_url: str, port: int, host: str, ca: Path) -> str:
    address = f"@127.0.0.1:{urlsplit(database_url).port}"
    assert address in database_url
    return f"{database_url.replace(address, f'@{host}:{port}')}?sslmode=verify-full&sslrootcert={ca}"


async def test_store_writes_by_verified_tls(database_url: str, tls_port: int, tmp_path: Path) -> None:
    store = PostgresStore(tls_url(database_url, tls_port, "localhost", tmp_path / "ca.crt"))
    assert await store.write([vehicle()]) == [Kept.STORED]
    await store.close()


async def test_certificate_of_another_name_is_refused(database_url: str, tls_port: int, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        await asyncpg.connect(tls_url(database_url, tls_port, "127.0.0.1", tmp_path / "ca.crt"))


async def test_certificate_of_a_foreign_ca_is_refused(database_url: str, tls_port: int, tmp_path: Path) -> None:
    (tmp_path / "foreign.crt").write_bytes(authority.create()[1])
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        await asyncpg.connect(tls_url(database_url, tls_port, "localhost", tmp_path / "foreign.crt"))


async def test_server_without_tls_is_refused(database_url: str, tls_port: int, tmp_path: Path) -> None:
    plain = urlsplit(database_url).port
    assert plain is not None
    with pytest.raises(ConnectionError, match="rejected SSL"):
        await asyncpg.connect(tls_url(database_url, plain, "localhost", tmp_path / "ca.crt"))
