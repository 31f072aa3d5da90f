"""The alarm for rejects: once a window, by number and by share."""

from bridge.reject_rate import FEWEST, WINDOW_S, RejectRate


def test_few_rejects_are_a_devices_slip() -> None:
    rate = RejectRate()
    assert not rate.alarms(FEWEST, FEWEST - 1, 100.0)


def test_many_rejects_of_very_many_items_are_no_alarm() -> None:
    rate = RejectRate()
    assert not rate.alarms(10_000, 400, 100.0)
    assert rate.alarms(0, 101, 101.0)


def test_alarm_is_raised_once_in_a_window_and_again_in_the_next() -> None:
    rate = RejectRate()
    assert rate.alarms(100, 50, 100.0)
    assert rate.figures == {"items": 100, "rejected": 50}
    assert not rate.alarms(100, 50, 100.0 + WINDOW_S / 2)
    assert rate.alarms(100, 50, 100.0 + WINDOW_S)
    assert rate.figures == {"items": 100, "rejected": 50}
