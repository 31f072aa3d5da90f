"""Pauses grow up to their limit, vary, and are short again after a success."""

import pytest

from bridge.backoff import Backoff


@pytest.mark.parametrize(("number", "most_s"), [*enumerate([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])])
def test_pause_is_between_half_and_all_of_what_it_has_grown_to(number: int, most_s: float) -> None:
    pauses = []
    for _ in range(200):
        backoff = Backoff(0.1, 1.0)
        pauses.append([backoff.next() for _ in range(number + 1)][-1])
    assert most_s / 2 <= min(pauses) < max(pauses) <= most_s


def test_pause_is_short_again_after_a_reset() -> None:
    backoff = Backoff(0.1, 5.0)
    for _ in range(10):
        backoff.next()
    assert backoff.next() >= 2.5
    backoff.reset()
    assert backoff.next() <= 0.1


def test_pause_can_be_limited_further_for_one_attempt() -> None:
    backoff = Backoff(0.1, 5.0)
    for _ in range(10):
        backoff.next()
    assert 0.2 <= backoff.next(0.4) <= 0.4
    assert 0.4 <= backoff.next() <= 0.8


def test_pauses_of_two_clients_differ() -> None:
    one, other = Backoff(1.0, 8.0), Backoff(1.0, 8.0)
    assert [one.next() for _ in range(5)] != [other.next() for _ in range(5)]
