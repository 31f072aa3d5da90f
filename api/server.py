"""The API as a process: uvicorn with the service, stopped by a signal after the requests in progress."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from api.app import service
from api.certificate import CIPHERS, ServedCertificate
from api.protocol import Limits, bounded_protocol
from bridge.health import listen
from bridge.metrics import process_registry
from bridge.settings.api import ApiSettings
from bridge.streams.port import Stream

log = structlog.get_logger(__name__)

_BACKLOG = 65_535
"""Connections that wait to be accepted; the kernel takes its own limit if that is less (net.core.somaxconn). When they
are too many, the kernel forgets the begin of the next one, whose client begins again after a second.
"""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises a caught signal again after a clean stop; a service stopped by a signal must exit with 0.
        yield


async def serve(settings: ApiSettings, target: Stream | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then complete the requests in progress and write their readings.

    Raises `Misconfigured` when the guarantee cannot be given, and the exception that ended the writer.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    registry = process_registry()
    async with service(settings, stop, registry, target) as front:
        listening = listen(settings.http_host, settings.http_port, "FLEET_HTTP")
        server = _Server(configured(settings, front))
        server.config.load()
        async with _current_certificate(settings, server.config, registry):
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            serving.add_done_callback(lambda _: stop.set())
            log.info(
                "serving", host=settings.http_host, port=settings.http_port, tls=settings.tls_cert_file is not None
            )
            await stop.wait()
            server.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def _current_certificate(
    settings: ApiSettings, config: uvicorn.Config, registry: CollectorRegistry
) -> AsyncIterator[None]:
    """Reload the certificate when it changes. Without TLS, SIGHUP is ignored instead of ending the process."""
    loop = asyncio.get_running_loop()
    if config.ssl is None or settings.tls_cert_file is None or settings.tls_key_file is None:
        loop.add_signal_handler(signal.SIGHUP, lambda: log.info("SIGHUP ignored: there is no certificate to reload"))
        yield
        return
    served = ServedCertificate(config.ssl, settings.tls_cert_file, settings.tls_key_file, registry)
    watching = asyncio.create_task(served.watch())
    try:
        yield
    finally:
        watching.cancel()


def configured(settings: ApiSettings, app: ASGIApp) -> uvicorn.Config:
    """The configuration of uvicorn for the application."""
    limits = Limits(
        connections=settings.http_max_connections,
        connections_per_address=min(settings.http_max_connections, settings.http_max_connections_per_address),
        connections_without_key=max(1, settings.http_max_connections // 2),
        head_timeout_s=settings.http_head_timeout_s,
        head_bytes=settings.http_head_max_bytes,
        write_timeout_s=settings.http_write_timeout_s,
    )
    return uvicorn.Config(
        app,
        http=bounded_protocol(limits),
        ws="none",
        interface="asgi3",  # the outermost layer is not a coroutine function, so uvicorn would detect ASGI 2
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.http_keep_alive_s,
        timeout_graceful_shutdown=settings.http_shutdown_timeout_s,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        ssl_ciphers=CIPHERS,
    )
