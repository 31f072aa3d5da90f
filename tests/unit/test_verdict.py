"""The verdicts on a batch, given the content of the history."""

from datetime import timedelta

from bridge.contract import METER, VEHICLE
from bridge.delivery import MOST_WARNINGS, Item, Kept, KeptWithWarnings, Receipt
from bridge.errors import Rejected
from bridge.reading import FieldWarning, Flagged
from bridge.store.ratings import Ratings
from bridge.store.verdict import any_repeated, presume_new, sort_out, with_warnings
from tests.readings import SEED_TIME, meter, vehicle

A = vehicle(at=SEED_TIME)
A_OTHER = vehicle(at=SEED_TIME, soc=1)
B = vehicle(at=SEED_TIME + timedelta(minutes=1))
POISON = Rejected("not_json", "why", b"x")
REFUSED = FieldWarning("refused", "soc", "too much")


def test_first_of_an_identity_wins_within_a_batch() -> None:
    outcomes, fresh = sort_out([A, A, A_OTHER, B], {}, "mqtt")
    assert outcomes[:2] == [Kept.STORED, Kept.DUPLICATE]
    assert isinstance(outcomes[2], Rejected)
    assert outcomes[2].reason == "conflict"
    assert outcomes[3] is Kept.STORED
    assert fresh == {VEHICLE: [A, B], METER: []}
    assert any_repeated(outcomes)


def test_known_identity_is_a_duplicate_or_a_conflict() -> None:
    outcomes, fresh = sort_out([A, B], {0: True, 1: False}, "http")
    assert outcomes[0] is Kept.DUPLICATE
    assert isinstance(outcomes[1], Rejected)
    assert (outcomes[1].reason, outcomes[1].topic) == ("conflict", None)
    assert fresh == {VEHICLE: [], METER: []}


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


def test_measure_that_only_one_of_them_has_is_another_value() -> None:
    outcomes, _ = sort_out([A, A.changed(soc=None), A.changed(power_kw=1)], {}, "mqtt")
    assert [isinstance(outcome, Rejected) for outcome in outcomes] == [False, True, True]


def test_warnings_of_a_reading_do_not_change_what_it_says() -> None:
    outcomes, fresh = sort_out([A, Flagged(A, (REFUSED,))], {}, "mqtt")
    assert outcomes == [Kept.STORED, Kept.DUPLICATE]
    assert fresh == {VEHICLE: [A], METER: []}


def test_presumed_new_is_as_if_nothing_was_there() -> None:
    items: list[Item] = [A, POISON, meter("X", SEED_TIME), B, Flagged(vehicle("EV_3", SEED_TIME), (REFUSED,))]
    assert presume_new(items) == sort_out(items, {}, "mqtt")
    assert presume_new([A, B]) == sort_out([A, B], {}, "mqtt")


def test_receipt_counts_and_names_the_rejected() -> None:
    receipt = Receipt.of([Kept.STORED, POISON, Kept.DUPLICATE, Kept.STORED])
    assert receipt.encode() == b'{"stored":2,"duplicates":1,"rejected":[{"index":1,"reason":"not_json: why"}]}'


def test_receipt_of_one_stored_reading_is_the_bytes_that_it_always_was() -> None:
    assert Receipt.of([Kept.STORED]).encode() == b'{"stored":1,"duplicates":0,"rejected":[]}'


def test_receipt_lists_warnings_of_kept_readings_by_index_and_field() -> None:
    receipt = Receipt.of([Kept.STORED, KeptWithWarnings(Kept.STORED, (REFUSED,)), KeptWithWarnings(Kept.DUPLICATE, ())])
    assert receipt.encode() == (
        b'{"stored":2,"duplicates":1,"rejected":[],"warnings":[{"index":1,"field":"soc","reason":"refused: too much"}]}'
    )


def test_warnings_reach_the_outcomes_of_what_is_kept_and_no_other() -> None:
    much = vehicle("EV_3", SEED_TIME).changed(kwh_delivered_dc=100)
    items: list[Item] = [
        A,
        POISON,
        Flagged(A, (REFUSED,)),
        Flagged(A_OTHER, (REFUSED,)),
        much,
        Flagged(much, (REFUSED,)),
    ]
    _, readings = presume_new(items)
    outcomes, _ = sort_out(items, {}, "mqtt")
    first, poison, again, conflict, suspect, both = with_warnings(items, outcomes, readings, Ratings(60))
    assert (first, poison) == (Kept.STORED, POISON)
    assert again == KeptWithWarnings(Kept.DUPLICATE, (REFUSED,))
    assert isinstance(conflict, Rejected)
    assert isinstance(suspect, KeptWithWarnings)
    assert isinstance(both, KeptWithWarnings)
    assert [w.code for w in suspect.warnings] == ["implausible"]
    assert [w.code for w in both.warnings] == ["refused", "implausible"]
    assert with_warnings([A, B], [Kept.STORED, Kept.STORED], presume_new([A, B])[1], Ratings(60)) == [Kept.STORED] * 2


def test_receipt_lists_at_most_so_many_warnings_and_says_how_many_are_omitted() -> None:
    outcome = KeptWithWarnings(Kept.STORED, (FieldWarning("refused", "soc", "why"),))
    receipt = Receipt.of([outcome] * (MOST_WARNINGS + 5))
    assert (receipt.stored, len(receipt.warnings)) == (MOST_WARNINGS + 5, MOST_WARNINGS + 1)
    assert receipt.warnings[-1]["reason"] == "omitted: 5 warnings"
