"""A device may send so many messages at once, and so many a second."""

from bridge.sources.shares import Shares


def test_device_beyond_its_share_waits_for_the_refilling_and_others_do_not() -> None:
    shares = Shares(per_s=10, burst=3)
    assert [shares.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert shares.take("b", 0.0)
    assert [shares.take("a", 0.1) for _ in range(2)] == [True, False]
    assert [shares.take("a", 60.0) for _ in range(4)] == [True, True, True, False]


def test_what_is_refused_uses_nothing_of_the_share() -> None:
    shares = Shares(per_s=1, burst=1)
    assert shares.take("a", 0.0)
    assert not any(shares.take("a", tenth / 10) for tenth in range(10))
    assert shares.take("a", 1.0)


def test_memory_is_bounded_and_a_device_that_exceeds_its_share_is_remembered_beside_many() -> None:
    shares = Shares(per_s=1, burst=100)
    for _ in range(100):
        shares.take("a", 0.0)
    for number in range(200_000):
        shares.take(f"d{number}", number / 10_000)
    assert len(shares._used) <= 50_001
