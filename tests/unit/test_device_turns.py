"""Devices take turns, whatever one of them sends."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.sources.turns import Turns


def test_device_with_one_message_waits_for_one_of_each_other_device() -> None:
    turns: Turns[str] = Turns()
    for message in ("a1", "a2", "a3", "b1", "c1", "c2"):
        turns.add(message[0], message, 10)
    assert [turns.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert not turns


def test_device_that_comes_back_queues_behind_the_others() -> None:
    turns: Turns[str] = Turns()
    turns.add("a", "a1", 1)
    turns.add("b", "b1", 1)
    assert turns.take() == "a1"
    turns.add("a", "a2", 1)
    assert [turns.take(), turns.take()] == ["b1", "a2"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100))))
def test_every_message_leaves_once_in_the_order_of_its_device(messages: list[tuple[str, int]]) -> None:
    turns: Turns[tuple[str, int]] = Turns()
    for number, (device, size_bytes) in enumerate(messages):
        turns.add(device, (device, number), size_bytes)
    assert turns.size_bytes == sum(size_bytes for _, size_bytes in messages)
    taken = [turns.take() for _ in messages]
    assert sorted(number for _, number in taken) == list(range(len(messages)))
    for device in "abc":
        own = [number for name, number in taken if name == device]
        assert own == sorted(own)
    assert not turns
    assert turns.size_bytes == 0


def test_bytes_of_a_device_are_those_of_its_messages_that_wait() -> None:
    turns: Turns[str] = Turns()
    for message, size_bytes in (("a1", 5), ("b1", 7), ("a2", 9)):
        turns.add(message[0], message, size_bytes)
    assert (turns.bytes_of("a"), turns.bytes_of("b"), turns.bytes_of("c")) == (14, 7, 0)
    turns.take()
    turns.take()
    assert (turns.bytes_of("a"), turns.bytes_of("b")) == (9, 0)
    turns.take()
    assert turns.bytes_of("a") == 0


def test_nothing_waits_after_clear() -> None:
    turns: Turns[str] = Turns()
    turns.add("a", "a1", 5)
    turns.clear()
    assert not turns
    assert turns.size_bytes == turns.bytes_of("a") == 0
