"""Records in Kafka: publishes them, and looks at what a group has committed."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from bridge.formats.contract_json import encode
from bridge.reading import Reading
from bridge.streams.kafka_client import Cluster

_TIMEOUT_S = 30.0


class Record(NamedTuple):
    """One record."""

    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = {}


class Topic:
    """One topic of a cluster, as its producers and administrators see it. Its methods block."""

    def __init__(self, url: str, name: str | None = None, sasl: str = "PLAIN", ca_file: Path | None = None) -> None:
        self.name = name or f"fleet-{uuid4().hex[:12]}"
        self._conf = Cluster(url, sasl, ca_file).configuration

    def create(self, partitions: int, **options: str) -> None:
        """Create it."""
        new = NewTopic(self.name, partitions, 1, config={k.replace("_", "."): v for k, v in options.items()})
        admin = AdminClient(self._conf)  # which ends its requests with itself
        admin.create_topics([new])[self.name].result(_TIMEOUT_S)

    def publish(self, readings: Iterable[Reading]) -> None:
        """Publish readings, and wait until all are durable."""
        self.send(Record(r.kind.topic(r.device).encode(), encode(r)) for r in readings)

    def send(self, records: Iterable[Record]) -> None:
        """Publish records, and wait until all are durable."""
        problems: list[str] = []
        producer = Producer({**self._conf, "acks": "all", "linger.ms": 5})
        for record in records:
            producer.produce(
                self.name,
                record.value,
                record.key,
                headers=dict(record.headers),
                on_delivery=lambda error, _: problems.append(str(error)) if error else None,
            )
            producer.poll(0)
        assert producer.flush(_TIMEOUT_S) == 0
        assert not problems, problems[0]

    def records(self) -> list[Record]:
        """All that it has."""
        found: list[Record] = []
        with self._consumer(f"look-{uuid4().hex}") as consumer:
            for number in self._partitions(consumer):
                low, high = consumer.get_watermark_offsets(TopicPartition(self.name, number), timeout=_TIMEOUT_S)
                consumer.assign([TopicPartition(self.name, number, low)])
                for _ in range(high - low):
                    message = consumer.poll(_TIMEOUT_S)
                    assert message is not None
                    assert message.error() is None
                    headers = dict(message.headers() or [])
                    found.append(Record(message.key(), message.value(), headers))  # type: ignore[arg-type]
        return found

    def committed(self, group: str = "fleet-bridge") -> int:
        """How many records the group has committed, over all partitions."""
        with self._consumer(group) as consumer:
            return sum(max(p.offset, 0) for p in self._committed(consumer))

    def is_committed(self, group: str = "fleet-bridge") -> bool:
        """Whether the group has committed everything that the topic has."""
        with self._consumer(group) as consumer:
            return all(
                max(p.offset, 0) >= consumer.get_watermark_offsets(p, timeout=_TIMEOUT_S)[1]
                for p in self._committed(consumer)
            )

    @contextlib.contextmanager
    def _consumer(self, group: str) -> Iterator[Consumer]:
        consumer = Consumer({**self._conf, "group.id": group, "enable.auto.commit": False})
        try:
            yield consumer
        finally:
            consumer.close()

    def _committed(self, consumer: Consumer) -> list[TopicPartition]:
        partitions = [TopicPartition(self.name, number) for number in self._partitions(consumer)]
        return consumer.committed(partitions, timeout=_TIMEOUT_S)

    def delete_before(self, offset: int) -> None:
        """Delete the records of partition 0 before an offset, as the retention does."""
        admin, at = AdminClient(self._conf), TopicPartition(self.name, 0, offset)
        admin.delete_records([at])[at].result(_TIMEOUT_S)

    def _partitions(self, consumer: Consumer) -> list[int]:
        return sorted(consumer.list_topics(self.name, timeout=_TIMEOUT_S).topics[self.name].partitions)
