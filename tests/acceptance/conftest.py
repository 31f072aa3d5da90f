"""The whole stack, without the simulator, for one module of tests."""

from collections.abc import Iterator

import httpx
import pytest

from local.platform import Platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """PostgreSQL, Mosquitto, bridge, keeper and API on free ports. A test that stops a part must restart it."""
    with Platform(tmp_path_factory.mktemp("platform")) as running:
        running.start()
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[httpx.Client]:
    """An HTTP client of the API with all rights."""
    headers = {"Authorization": f"Bearer {platform.api_key}"}
    with httpx.Client(base_url=platform.api.url, headers=headers, timeout=20) as http:
        yield http
