"""The alarm for connections: by their number in any minute, once a minute."""

from bridge.connect_rate import MOST, WINDOW_S, ConnectRate


def alarms(rate: ConnectRate, *times: float) -> list[float]:
    return [now for now in times if rate.alarms(now)]


def test_connections_of_a_bad_hour_are_no_alarm() -> None:
    assert not alarms(ConnectRate(), *(100.0 + n * WINDOW_S / (MOST - 2) for n in range(60)))


def test_too_many_within_a_minute_are_an_alarm_wherever_the_minute_begins() -> None:
    crowd = [150.0 + n for n in range(MOST)]
    assert alarms(ConnectRate(), 0.0, 80.0, *crowd) == [crowd[-1]]


def test_fight_that_goes_on_alarms_once_a_minute() -> None:
    rate = ConnectRate()
    assert alarms(rate, *(100.0 + n for n in range(200))) == [109.0, 169.0, 229.0, 289.0]
