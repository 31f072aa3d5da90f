"""A duplicate has the same verdict within a batch (decided in Python) and against the history (in SQL)."""

import json
from collections.abc import AsyncIterator

import pytest

from bridge.delivery import Kept
from bridge.errors import Rejected
from bridge.store.postgres import PostgresStore
from tests.readings import SEED_TIME, vehicle
from tests.same_json import DIFFERENT, SAME

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database_url)
    yield store
    await store.close()


@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "against the history"])
async def test_repetition_is_a_duplicate_or_a_conflict_by_what_its_json_says(
    at_once: bool, store: PostgresStore
) -> None:
    pairs = [*SAME, *DIFFERENT, *((other, one) for one, other in DIFFERENT)]
    first, again = (
        [vehicle(f"EV_{n}", SEED_TIME, note=[json.loads(pair[side])]) for n, pair in enumerate(pairs)]
        for side in (0, 1)
    )
    outcomes = await store.write([*first, *again]) if at_once else await store.write(first) + await store.write(again)
    assert outcomes[: len(first)] == [Kept.STORED] * len(first)
    for pair, outcome in zip(pairs, outcomes[len(first) :], strict=True):
        if pair in SAME:
            assert outcome is Kept.DUPLICATE, pair
        else:
            assert isinstance(outcome, Rejected), pair
            assert outcome.reason == "conflict"
