"""Posts each file to URL by the standard library, with its length known and then chunked, on one connection."""

import http.client
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit


def chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 10_000):
        yield data[start : start + 10_000]


url, key, *files = sys.argv[1:]
parts = urlsplit(url)
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
connection = http.client.HTTPConnection(parts.netloc)
for data in map(Path.read_bytes, map(Path, files)):
    for body in (data, chunks(data)):
        connection.request("POST", parts.path, body, headers)
        answer = connection.getresponse()
        print(answer.status, answer.read().decode().strip())
