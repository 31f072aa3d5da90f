"""The partitions of a NATS JetStream stream that this bridge reads; those of other bridges it leaves alone.

Which ones are its own is decided outside (`assign`). Nothing is lost or stored twice while two bridges read the same
partition: each one sees gaps and begins again, and the key of the history absorbs repeats. See `jetstream_partition`.
"""

import asyncio

from prometheus_client import CollectorRegistry

from bridge.settings.jetstream import JetStreamSettings
from bridge.sources.jetstream_metrics import JetStreamMetrics
from bridge.sources.jetstream_partition import Partition
from bridge.sources.port import Intake, Open, SourceKind
from bridge.streams.jetstream_client import require


class JetStreamSource:
    """Reads the assigned partitions, each on a connection of its own."""

    def __init__(self, settings: JetStreamSettings, intake: Intake, metrics: JetStreamMetrics) -> None:
        self._settings, self._intake, self._metrics = settings, intake, metrics
        self._reading: dict[int, tuple[Partition, asyncio.Task[None]]] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = False
        intake.on_room = self._resume

    @property
    def not_ready(self) -> str | None:
        """See `port.Source`."""
        if not self._reading:
            return "standing by: other bridges read all partitions of the stream"
        return next((reason for part, _ in self._reading.values() if (reason := part.not_ready) is not None), None)

    async def run(self) -> None:
        """Read until cancelled. Raises `Misconfigured`."""
        await self._failed

    async def assign(self, partitions: frozenset[int]) -> None:
        """See `port.Divided`."""
        given_up = [self._reading.pop(number) for number in self._reading.keys() - partitions]
        for part, _ in given_up:
            part.stop_reading()
        await _end(given_up)
        for number in sorted(partitions - self._reading.keys()) if not self._stopping else ():
            part = Partition(number, self._settings, self._intake, self._metrics)
            task = asyncio.create_task(part.run())
            task.add_done_callback(self._note_failure)
            self._reading[number] = part, task

    def _note_failure(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _resume(self) -> None:
        for part, _ in self._reading.values():
            part.resume()

    def stop_reading(self) -> None:
        """Request nothing more. Earlier messages are still acknowledged after their commit."""
        self._stopping = True
        for part, _ in self._reading.values():
            part.stop_reading()

    async def close(self) -> None:
        """Send the last acknowledgements, and close; the stream keeps the other messages."""
        await _end(list(self._reading.values()))

    def abort(self, reason: str) -> None:
        """Close the connections: another bridge has taken over."""
        self._stopping = True
        for part, _ in self._reading.values():
            part.abort(reason)


async def _end(reading: list[tuple[Partition, "asyncio.Task[None]"]]) -> None:
    await asyncio.gather(*(part.close() for part, _ in reading))
    for _, task in reading:
        task.cancel()
    await asyncio.gather(*(task for _, task in reading), return_exceptions=True)


def _open(settings: JetStreamSettings, registry: CollectorRegistry) -> Open:
    require()
    metrics = JetStreamMetrics(registry)
    return lambda intake: JetStreamSource(settings, intake, metrics)


def _partitions(settings: JetStreamSettings) -> int:
    return settings.nats_partitions


SOURCE = SourceKind(JetStreamSettings, _open, shares=True, partitions=_partitions)
