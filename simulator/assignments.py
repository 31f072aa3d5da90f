"""Registers with the API which vehicle each meter feeds, and since when."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx

from bridge.backoff import Backoff
from bridge.reading import format_timestamp
from simulator.endpoints import Api
from simulator.fleet import Assignment, Device
from simulator.http import UnexpectedAnswer
from simulator.ledger import LedgerWriter
from simulator.tally import Tally

WORKERS = 32
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Registrar:
    """Registers assignments in the background, in any order, because each contains its begin."""

    def __init__(
        self, client: httpx.AsyncClient, api: Api, devices: Sequence[Device], ledger: LedgerWriter, tally: Tally
    ) -> None:
        self._client, self._api, self._devices = client, api, devices
        self._ledger, self._tally = ledger, tally
        self._contact = tally.contact(f"API {api.url}")
        self._queue: asyncio.Queue[Assignment] = asyncio.Queue()

    def register(self, assignments: Sequence[Assignment]) -> None:
        """Queue assignments for registration."""
        self._tally.assignments_due += len(assignments)
        for assignment in assignments:
            self._queue.put_nowait(assignment)

    async def registered(self) -> None:
        """Wait until the API has accepted all of them."""
        await self._queue.join()

    async def run(self) -> None:
        """Register until cancelled. Raises `UnexpectedAnswer`."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(WORKERS):
                workers.create_task(self._work())

    async def _work(self) -> None:
        while True:
            assignment, backoff = await self._queue.get(), Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            while not await self._put(assignment):  # noqa: ASYNC110 - the other side is a server, not a task
                await asyncio.sleep(backoff.next())
            microseconds = (assignment.valid_from - _EPOCH) // timedelta(microseconds=1)
            self._ledger.assigned(assignment.meter, microseconds, assignment.vehicle)
            self._tally.assignments += 1
            self._queue.task_done()

    async def _put(self, assignment: Assignment) -> bool:
        meter = self._devices[assignment.meter].id
        vehicle = None if assignment.vehicle is None else self._devices[assignment.vehicle].id
        url = f"{self._api.url}/v1/meters/{meter}/assignments/{format_timestamp(assignment.valid_from)}"
        url += "?replace=true"  # a restarted run may assign another vehicle in the same minute
        try:
            response = await self._client.put(url, json={"vehicleId": vehicle}, headers=self._api.headers)
        except httpx.TransportError as error:
            self._contact.failed(error)
            return False
        self._contact.made()
        if response.is_server_error or response.status_code == 429:
            return False
        if not response.is_success:
            raise UnexpectedAnswer(f"PUT {url}: {response.status_code} {response.text[:500]}")
        return True
