"""A client that requests CSV and reads little of the response."""

import socket
import time

from tests.integration.api.server import Api


class SlowReader:
    """A connection on which the CSV of a path is requested, and which buffers little of the response."""

    def __init__(self, api: Api, token: str, path: str) -> None:
        self.socket = socket.socket()
        # Small buffers, because those of the system would hold the whole response.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", api.port))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        self.socket.sendall(f"{head}Accept: text/csv\r\nConnection: close\r\n\r\n".encode())

    def begin(self) -> bytes:
        """The first bytes of the response."""
        return self.socket.recv(4_096)

    def read(self, pause_s: float) -> bytes:
        """The rest of the response, read with a pause after each 256 KiB; then the connection is closed."""
        received, since_pause = bytearray(), 0
        with self.socket:
            while chunk := self.socket.recv(65_536):
                received += chunk
                since_pause += len(chunk)
                if since_pause > 256 * 1024:
                    time.sleep(pause_s)
                    since_pause = 0
        return bytes(received)
