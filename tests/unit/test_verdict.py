"""What becomes of a batch, given what the history holds."""

from datetime import timedelta

from bridge.delivery import Item, Kept, Receipt
from bridge.errors import Rejected
from bridge.verdict import any_repeated, presume_new, sort_out
from tests.readings import SEED_TIME, meter, vehicle

A = vehicle(at=SEED_TIME)
A_OTHER = vehicle(at=SEED_TIME, soc=1)
B = vehicle(at=SEED_TIME + timedelta(minutes=1))
POISON = Rejected("not_json", "why", b"x", "mqtt")


def test_first_of_an_identity_wins_within_a_batch() -> None:
    outcomes, fresh = sort_out([A, A, A_OTHER, B], {}, "mqtt")
    assert outcomes[:2] == [Kept.STORED, Kept.DUPLICATE]
    assert isinstance(outcomes[2], Rejected)
    assert outcomes[2].reason == "conflict"
    assert outcomes[3] is Kept.STORED
    assert fresh == {"vehicle": [A, B], "meter": []}
    assert any_repeated(outcomes)


def test_known_identity_is_a_duplicate_or_a_conflict() -> None:
    outcomes, fresh = sort_out([A, B], {0: True, 1: False}, "http")
    assert outcomes[0] is Kept.DUPLICATE
    assert isinstance(outcomes[1], Rejected)
    assert (outcomes[1].reason, outcomes[1].source, outcomes[1].topic) == ("conflict", "http", None)
    assert fresh == {"vehicle": [], "meter": []}


def test_rejected_passes_and_is_no_repetition() -> None:
    outcomes, _ = sort_out([POISON, A], {}, "mqtt")
    assert outcomes == [POISON, Kept.STORED]
    assert not any_repeated(outcomes)


def test_same_name_of_both_kinds_is_two_devices() -> None:
    outcomes, _ = sort_out([vehicle("X", SEED_TIME), meter("X", SEED_TIME)], {}, "mqtt")
    assert outcomes == [Kept.STORED, Kept.STORED]


def test_other_extra_is_another_value() -> None:
    outcomes, _ = sort_out([A, vehicle(at=SEED_TIME, firmware="2")], {}, "mqtt")
    assert isinstance(outcomes[1], Rejected)


def test_presumed_new_is_as_if_nothing_was_there() -> None:
    items: list[Item] = [A, POISON, meter("X", SEED_TIME), B]
    assert presume_new(items) == sort_out(items, {}, "mqtt")
    assert presume_new([A, B]) == sort_out([A, B], {}, "mqtt")


def test_receipt_counts_and_names_the_rejected() -> None:
    receipt = Receipt.of([Kept.STORED, POISON, Kept.DUPLICATE, Kept.STORED])
    assert receipt.encode() == b'{"stored":2,"duplicates":1,"rejected":[{"index":1,"reason":"not_json: why"}]}'
