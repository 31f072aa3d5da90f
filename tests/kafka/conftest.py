"""Real brokers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.settings.development import SuiteSettings
from local.kafka import Kafka


@pytest.fixture(scope="session")
def jars() -> Path:
    """The jars of the broker."""
    found = SuiteSettings.read(os.environ).test_kafka_jars
    if found is None:
        pytest.skip("needs Java and a Kafka broker: run make test-kafka")
    return found.resolve()


@pytest.fixture(scope="session")
def shared_kafka(tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[Kafka]:
    """A broker of the test session, with a topic for each test."""
    broker = Kafka(tmp_path_factory.mktemp("kafka") / "broker", jars)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def own_kafka(tmp_path: Path, jars: Path) -> Iterator[Kafka]:
    """A broker of the test's own, which it may kill."""
    broker = Kafka(tmp_path / "kafka" / "broker", jars)
    broker.start()
    yield broker
    broker.stop()
