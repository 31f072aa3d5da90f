"""The batch policy against a model: items leave in order, complete, and within the limits."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.batch import Batch


def test_batch_is_due_at_its_size() -> None:
    batch: Batch[str] = Batch(size=3, age_s=10)
    assert [batch.add(item, 1, now=0.0) for item in "abc"] == [False, False, True]
    assert batch.due_in(0.0) == 0.0
    assert batch.take() == ["a", "b", "c"]


def test_batch_is_due_when_its_oldest_is_old() -> None:
    batch: Batch[str] = Batch(size=100, age_s=0.5)
    assert batch.due_in(7.0) is None
    batch.add("a", 1, now=7.0)
    batch.add("b", 1, now=7.4)
    assert batch.due_in(7.2) == 0.5 - (7.2 - 7.0)
    assert batch.due_in(7.5) == 0.0
    assert batch.due_in(99.0) == 0.0


def test_batch_takes_an_item_heavier_than_its_size_alone() -> None:
    batch: Batch[str] = Batch(size=10, age_s=1)
    batch.add("light", 1, 0.0)
    batch.add("heavy", 50, 0.0)
    batch.add("last", 1, 0.0)
    assert [batch.take(), batch.take(), batch.take(), batch.take()] == [["light"], ["heavy"], ["last"], []]
    assert batch.weight == 0


def test_batch_rest_is_due_at_once() -> None:
    batch: Batch[int] = Batch(size=2, age_s=10)
    for n in range(3):
        batch.add(n, 1, now=0.0)
    batch.take()
    assert batch.due_in(10.0) == 0.0


@given(st.lists(st.integers(1, 20)), st.integers(1, 30))
def test_batch_gives_back_everything_in_order(weights: list[int], size: int) -> None:
    batch: Batch[int] = Batch(size, 1)
    for n, weight in enumerate(weights):
        batch.add(n, weight, now=float(n))
    taken: list[int] = []
    while batch:
        part = batch.take()
        assert part
        assert len(part) == 1 or sum(weights[n] for n in part) <= size
        taken += part
    assert taken == list(range(len(weights)))
    assert batch.weight == 0
