"""Kafka's client. The only module that knows confluent-kafka, which the extra `kafka` installs.

Its calls block: use a `Consumer` in one thread at a time, which is not that of the event loop.
"""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bridge.extras import extra
from bridge.streams.port import Done, StreamUnavailable
from bridge.url import split_kafka

if TYPE_CHECKING:
    from confluent_kafka import Consumer as KafkaConsumer
    from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
    from confluent_kafka.admin import AdminClient

_TIMEOUT_S = 5.0
_MOST_MESSAGES = 1_000  # of one read: much smaller than a batch
_QUEUED_KIB = 32 << 10  # what the client fetches in advance
_LAG_EVERY_S = 2.0
_CREATE_TIMEOUT_S = 20.0
_UNSENT_KIB = 64 << 10  # what a producer keeps while the cluster is away
_MOST_ERRORS = 10
_PUBLISH_MS = 30_000  # so long a record is tried again before it counts as not durable
_MOMENT = re.compile(r" \(after \d+ms in state .*\)$")  # of a reason, which is the same at the next attempt


class KafkaUnavailable(StreamUnavailable):
    """The cluster does not answer, or refused a request."""


class Cluster(NamedTuple):
    """Where the cluster is, and the account."""

    url: str
    sasl: str
    ca_file: Path | None

    @property
    def configuration(self) -> dict[str, Any]:
        """What every client of librdkafka is configured with."""
        parts, servers = split_kafka(self.url)
        protocol = ("SASL_" if parts.user else "") + ("SSL" if parts.tls else "PLAINTEXT")
        configuration: dict[str, Any] = {
            "bootstrap.servers": ",".join(servers),
            "security.protocol": protocol,
            "client.id": "fleet-bridge",
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 0,  # what matters arrives as an error
        }
        if parts.user:
            configuration |= {
                "sasl.mechanism": self.sasl,
                "sasl.username": parts.user,
                "sasl.password": parts.password,
            }
        if self.ca_file is not None:
            configuration["ssl.ca.location"] = str(self.ca_file)
        return configuration


def require() -> None:
    """Exit with 2, and name the extra, when confluent-kafka is not installed."""
    with extra("kafka"):
        import confluent_kafka  # noqa: F401


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Turn the errors of confluent-kafka into `KafkaUnavailable`."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        raise KafkaUnavailable(_text(error)) from None


def _text(error: "KafkaException") -> str:
    reason = error.args[0] if error.args else error
    return str(reason.str() if hasattr(reason, "str") else reason)


@contextlib.contextmanager
def _administering(cluster: Cluster) -> "Iterator[AdminClient]":
    """A client for requests about topics. Its errors name what keeps the brokers away: a request only times out."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    problems: list[KafkaError] = []
    with _asking():
        admin = AdminClient(cluster.configuration | {"error_cb": problems.append})
    try:
        yield admin
    except KafkaException as error:
        admin.poll(0)
        raise KafkaUnavailable(_cause(problems) or _text(error)) from None


def _cause(problems: "Sequence[KafkaError]") -> str | None:
    """The cause among the errors of connections: one that refused a broker or was refused before one that failed."""
    from confluent_kafka import KafkaError

    refusals = (KafkaError._AUTHENTICATION, KafkaError._SSL)
    causes = [problem for problem in problems if problem.code() != KafkaError._ALL_BROKERS_DOWN]
    cause = min(causes, key=lambda problem: problem.code() not in refusals, default=None)
    return None if cause is None else _MOMENT.sub("", cause.str())


# -- the topic


class Topic(NamedTuple):
    """What a topic promises."""

    partitions: int
    replicas: int
    options: Mapping[str, str]
    """Its configuration, as Kafka names it."""


def topic_of(cluster: Cluster, name: str) -> Topic | None:
    """The topic of this name; None when there is none. Raises `KafkaUnavailable`."""
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

    with _administering(cluster) as admin:
        found = admin.list_topics(timeout=_TIMEOUT_S).topics.get(name)
        if found is None or found.error is not None:
            return None
        resource = ConfigResource(ResourceType.TOPIC, name)
        options = admin.describe_configs([resource], request_timeout=_TIMEOUT_S)[resource].result()
    partitions = found.partitions.values()
    replicas = min((len(partition.replicas) for partition in partitions), default=0)
    return Topic(len(partitions), replicas, {option: entry.value for option, entry in options.items()})


def create_topic(cluster: Cluster, name: str, topic: Topic) -> None:
    """Create a topic. Raises `KafkaUnavailable`."""
    from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

    new = NewTopic(name, topic.partitions, topic.replicas, config=dict(topic.options))
    with _administering(cluster) as admin:
        admin.create_topics([new], operation_timeout=_CREATE_TIMEOUT_S)[name].result()


# -- the consumer


class Start(NamedTuple):
    """Where the reading of a partition begins."""

    offset: int
    lost: int
    """Messages before it that the group had not read, and that the topic no longer has."""


class Owner(Protocol):
    """Is told of the partitions. Its methods are called in the consumer's thread and may block it."""

    def assigned(self, starts: Mapping[int, Start]) -> None:
        """These partitions belong to this consumer from now on."""
        ...

    def released(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """These partitions are to be given up; the offsets to commit before that."""
        ...

    def lost(self, partitions: Sequence[int]) -> None:
        """These partitions have been given to others."""
        ...

    def refused(self, reason: str) -> None:
        """The cluster refused a commit of offsets."""
        ...

    def away(self, reason: str) -> None:
        """No broker can be reached."""
        ...


class Consumer:
    """A member of the consumer group. Partitions move one by one, so that the others go on being read."""

    def __init__(self, cluster: Cluster, group: str, topic: str, session_timeout_ms: int, owner: Owner) -> None:
        from confluent_kafka import Consumer as KafkaConsumer

        self._topic = topic
        self._owner = owner
        self._paused = False
        self._problem: str | None = None
        self._lag_at = 0.0
        self._lag: dict[int, int] = {}
        configuration = {
            **cluster.configuration,
            "group.id": group,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": max(session_timeout_ms // 6, 100),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": _QUEUED_KIB,
            "fetch.queue.backoff.ms": 20,
            "error_cb": self._error,
            "on_commit": self._on_commit,
        }
        with _asking():
            self._consumer: KafkaConsumer = KafkaConsumer(configuration)
            self._consumer.subscribe(
                [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )

    def read(self, timeout_s: float) -> "list[Message]":
        """The next messages, none after `timeout_s`; serves the group meanwhile. Raises `KafkaUnavailable`."""
        with _asking():
            first = self._consumer.poll(timeout_s)
            messages = [first, *self._consumer.consume(_MOST_MESSAGES - 1, 0.0)] if first is not None else []
        if self._problem is not None:
            raise KafkaUnavailable(self._problem)
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaUnavailable(error.str())
        return messages

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets without waiting; `Owner.refused` is told of a failure. Raises `KafkaUnavailable`."""
        with _asking():
            self._consumer.commit(offsets=self._at(offsets), asynchronous=True)

    def commit_now(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets and wait for it. Raises `KafkaUnavailable`."""
        with _asking():
            for partition in self._consumer.commit(offsets=self._at(offsets), asynchronous=False):
                if partition.error is not None:
                    raise KafkaUnavailable(str(partition.error))

    def pause(self) -> None:
        """Fetch nothing more; `read` returns nothing, and this stays a member of the group."""
        if not self._paused:
            self._paused = True
            with _asking():
                self._consumer.pause(self._consumer.assignment())

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            self._paused = False
            with _asking():
                self._consumer.resume(self._consumer.assignment())

    def ends(self) -> Mapping[int, int]:
        """The offsets behind the last message of each partition, as known of the last fetch."""
        now = time.monotonic()
        if now - self._lag_at >= _LAG_EVERY_S:
            self._lag_at = now
            with _asking():
                for partition in self._consumer.assignment():
                    known = self._consumer.get_watermark_offsets(partition, cached=True)
                    if known is not None and known[1] >= 0:
                        self._lag[partition.partition] = known[1]
        return self._lag

    def answers(self) -> None:
        """Return when a broker answers. Raises `KafkaUnavailable`."""
        with _asking():
            self._consumer.list_topics(self._topic, timeout=1.0)

    def close(self) -> None:
        """Give up all partitions, which commits what `Owner.released` says, and leave the group."""
        with contextlib.suppress(KafkaUnavailable), _asking():
            self._consumer.close()

    def _at(self, offsets: Mapping[int, int]) -> "list[TopicPartition]":
        from confluent_kafka import TopicPartition

        return [TopicPartition(self._topic, number, offset) for number, offset in offsets.items()]

    # -- called by the client, in `read` and `close`

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Let `read` raise the error: one that leaves a callback ends the thread on Python 3.11."""
        try:
            with _asking():
                yield
        except KafkaUnavailable as error:
            self._problem = str(error)

    def _on_assign(self, consumer: "KafkaConsumer", partitions: "list[TopicPartition]") -> None:
        starts: dict[int, Start] = {}
        with self._noting():
            if partitions:  # none when there are more members than partitions
                starts = {p.partition: self._start(p) for p in consumer.committed(partitions, timeout=_TIMEOUT_S)}
                consumer.incremental_assign(self._at({number: start.offset for number, start in starts.items()}))
            if self._paused:
                consumer.pause(self._at(dict.fromkeys(starts, 0)))
            self._owner.assigned(starts)

    def _start(self, committed: "TopicPartition") -> Start:
        """Behind the committed offset, or the oldest message that the topic has."""
        low, high = self._consumer.get_watermark_offsets(committed, timeout=_TIMEOUT_S)
        if committed.offset < 0:
            return Start(low, 0)
        if committed.offset > high:  # another topic of this name
            return Start(low, 0)
        return Start(max(committed.offset, low), max(low - committed.offset, 0))

    def _on_revoke(self, consumer: "KafkaConsumer", partitions: "list[TopicPartition]") -> None:
        if offsets := self._owner.released([p.partition for p in partitions]):
            try:
                self.commit_now(offsets)
            except KafkaUnavailable as error:  # the next owner reads the messages again
                self._owner.refused(str(error))
        self._forget(consumer, partitions)

    def _on_lost(self, consumer: "KafkaConsumer", partitions: "list[TopicPartition]") -> None:
        self._owner.lost([p.partition for p in partitions])
        self._forget(consumer, partitions)

    def _forget(self, consumer: "KafkaConsumer", partitions: "list[TopicPartition]") -> None:
        with self._noting():
            consumer.incremental_unassign(partitions)
        for partition in partitions:
            self._lag.pop(partition.partition, None)

    def _on_commit(self, error: "KafkaError | None", partitions: "list[TopicPartition]") -> None:
        failed = error or next((p.error for p in partitions if p.error is not None), None)
        if failed is not None:
            self._owner.refused(str(failed))

    def _error(self, error: "KafkaError") -> None:
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL):
            self._owner.away(_MOMENT.sub("", error.str()))


# -- the producer


class Producer:
    """Publishes records, each acknowledged by all replicas that are in sync. For the thread of the event loop.

    A cluster that has forgotten records, as after a restore, refuses the numbers of the next ones: then this producer
    publishes nothing more, which shows as a fatal error or as records that are not durable in time, and a new one is
    needed.
    """

    def __init__(self, cluster: Cluster) -> None:
        from confluent_kafka import Producer as KafkaProducer

        self._fatal: str | None = None
        with _asking():
            self._producer = KafkaProducer(
                {
                    **cluster.configuration,
                    "acks": "all",
                    "enable.idempotence": True,
                    "linger.ms": 2,
                    "queue.buffering.max.kbytes": _UNSENT_KIB,
                    "message.timeout.ms": _PUBLISH_MS,
                    "error_cb": self._error,
                }
            )

    def _error(self, error: "KafkaError") -> None:
        if error.fatal():
            self._fatal = error.str()

    def publish(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes]],
        done: Done,
    ) -> None:
        """Publish a record; `serve` calls `done` with None when it is durable, or with the reason why it is not.

        Raises `BufferError` when too much waits, and `KafkaUnavailable`.
        """
        with _asking():
            self._producer.produce(
                topic,
                value,
                key,
                headers=list(headers),
                on_delivery=lambda error, _: done(None if error is None else error.str()),
            )

    def serve(self) -> None:
        """Call the functions of what was published. Raises `KafkaUnavailable` when nothing more can be published."""
        with _asking():
            self._producer.poll(0)
        if self._fatal is not None:
            raise KafkaUnavailable(self._fatal)

    def flush(self, timeout_s: float) -> None:
        """Wait until all is published, and call the functions. Raises `KafkaUnavailable`."""
        with _asking():
            self._producer.flush(timeout_s)

    def discard(self) -> None:
        """Give up what is not published yet, and call the functions with the reason."""
        self._producer.purge()
        for _ in range(_MOST_ERRORS):  # each is raised once, before the functions behind it are called
            with contextlib.suppress(KafkaUnavailable):
                self.flush(0)
                return
