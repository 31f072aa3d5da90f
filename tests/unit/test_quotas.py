"""What is admitted, kept and counted of a device, with times that the test chooses."""

from datetime import timedelta

import pytest

from bridge.contract import VEHICLE
from bridge.delivery import Item, Kept, Outcome
from bridge.errors import Reason, Rejected
from bridge.quota import Quota
from bridge.reading import FieldWarning, Flagged
from bridge.store.quotas import DAY_S, Allowance, Charge, Excess, Quotas
from bridge.store.verdict import presume_new
from tests.readings import minutes, vehicle

WIDE = Quota(10**9, 10**9, 10**9, 10**9)
NOON_S = 1_000.0


def write(quotas: Quotas, items: list[Item], now: float, *outcomes: Outcome) -> list[Item]:
    """A transaction that commits; by default every admitted reading is stored."""
    charge = Charge(quotas, "mqtt", now)
    admitted = list(charge.admit(items, presume_new(items)[1]))
    made = [item if isinstance(item, Rejected) else Kept.STORED for item in admitted]
    charge.sift([item for item in admitted if isinstance(item, Rejected)])
    charge.committed(admitted, list(outcomes) or made)
    return admitted


def refused(items: list[Item]) -> list[int]:
    return [n for n, item in enumerate(items) if isinstance(item, Rejected) and item.reason == "quota_exceeded"]


def test_allowance_is_full_at_first_and_refills_evenly() -> None:
    allowance = Allowance(DAY_S)
    assert allowance.left("EV_1", NOON_S) == DAY_S
    allowance.take({"EV_1": DAY_S}, NOON_S)
    assert [allowance.left("EV_1", NOON_S + s) for s in (0, 10, DAY_S, 3 * DAY_S)] == [0, 10, DAY_S, DAY_S]
    assert allowance.left("EV_2", NOON_S) == DAY_S
    assert allowance.exceeding({"EV_1": 11, "EV_2": DAY_S + 1, "EV_3": 1}, NOON_S + 10) == ["EV_1", "EV_2"]


def test_readings_up_to_the_quota_are_admitted_in_order_and_others_of_the_batch_too() -> None:
    quotas = Quotas(WIDE._replace(readings=10))
    mine, other = list(minutes("EV_1", 12)), list(minutes("EV_2", 3))
    items: list[Item] = [*mine[:6], *other, *mine[6:]]
    assert refused(write(quotas, items, NOON_S)) == [13, 14]
    assert refused(write(quotas, [*minutes("EV_1", 2)], NOON_S)) == [0, 1]
    assert refused(write(quotas, [*minutes("EV_1", 2)], NOON_S + DAY_S / 10)) == [1]
    assert refused(write(quotas, [*minutes("EV_2", 7)], NOON_S)) == []


def test_warned_readings_count_and_a_meter_of_the_same_name_does_not() -> None:
    quotas = Quotas(WIDE._replace(readings=1))
    warned = Flagged(vehicle("A"), (FieldWarning("refused", "soc", "why"),))
    assert refused(write(quotas, [warned, vehicle("A", warned.reading.timestamp + timedelta(minutes=1))], NOON_S)) == [
        1
    ]
    assert not quotas.readings[VEHICLE].left("A", NOON_S)
    assert all(own.left("A", NOON_S) for kind, own in quotas.readings.items() if kind is not VEHICLE)


def test_duplicates_and_failed_transactions_cost_nothing() -> None:
    quotas = Quotas(WIDE._replace(readings=2))
    two: list[Item] = [*minutes("EV_1", 2)]
    Charge(quotas, "mqtt", NOON_S).admit(two, presume_new(two)[1])  # and never committed
    write(quotas, two, NOON_S, Kept.DUPLICATE, Kept.DUPLICATE)
    assert refused(write(quotas, two, NOON_S, Kept.STORED, Kept.DUPLICATE)) == []
    assert refused(write(quotas, two, NOON_S)) == [1]


def test_unknown_fields_have_a_quota_of_their_own() -> None:
    size = len('{"log": "xxxxxxxxxx"}')
    quotas = Quotas(WIDE._replace(extra_bytes=2 * size))
    large: list[Item] = [reading.with_extra({"log": "x" * 10}) for reading in minutes("EV_1", 3)]
    assert refused(write(quotas, large, NOON_S)) == [2]
    assert refused(write(quotas, [*minutes("EV_1", 3)], NOON_S)) == [], "readings without them are stored"


def reject(number: int, device: str | None = "EV_1", sender: str | None = None) -> Rejected:
    reason: Reason = "not_json" if sender is None else "forbidden"
    return Rejected(reason, "why", b"%4d" % number, "t", device, sender=sender)


def test_rejects_beyond_the_quota_are_counted_and_a_sample_is_kept() -> None:
    quotas = Quotas(WIDE._replace(rejects=10))
    charge = Charge(quotas, "mqtt", NOON_S)
    kept = charge.sift([reject(n) for n in range(25)]) + charge.sift([reject(n) for n in range(25, 30)])
    assert len(kept) == 10
    assert charge.excess == {Excess("mqtt", "", "EV_1", "not_json"): (20, 80)}
    assert not quotas.not_kept, "it is not committed yet"
    charge.committed([], [])
    assert quotas.not_kept == {"not_json": 20}
    later = [Charge(quotas, "mqtt", NOON_S + DAY_S * hours / 24) for hours in (1, 3)]
    assert [len(charge.sift([reject(n) for n in range(5)])) for charge in later] == [0, 1]
    assert len(Charge(quotas, "mqtt", NOON_S).sift([reject(n, "EV_2") for n in range(5)])) == 5


def test_bytes_of_rejects_have_a_quota() -> None:
    charge = Charge(Quotas(WIDE._replace(reject_bytes=10)), "mqtt", NOON_S)
    assert len(charge.sift([reject(n) for n in range(5)])) == 2


@pytest.mark.parametrize("device", ["EV_1", None])
def test_key_that_claims_other_devices_uses_its_own_quota(device: str | None) -> None:
    charge = Charge(Quotas(WIDE._replace(rejects=2)), "http", NOON_S)
    assert len(charge.sift([reject(n, device, "key1") for n in range(3)])) == 2
    assert not charge.sift([reject(n, "EV_9", "key1") for n in range(3)])
    assert charge.excess == {Excess("http", "key1", "", "forbidden"): (4, 16)}
    assert len(charge.sift([reject(n, device, "key2") for n in range(2)])) == 2


def test_readings_of_a_huge_number_of_devices_do_not_accumulate() -> None:
    allowance = Allowance(1_000_000)
    for n in range(5):
        allowance.take({f"EV_{n}_{m}": 1.0 for m in range(100_000)}, NOON_S + n * 60)
    assert len(allowance._used) <= 300_000
