"""Pacing of readings, the progress line, and the accepted URLs."""

from datetime import UTC, datetime, timedelta

import pytest

from simulator.endpoints import broker_of
from simulator.pacing import Pacer, start_for
from simulator.progress import summary
from simulator.tally import Latencies, Tally

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


def test_as_fast_as_it_goes_never_waits() -> None:
    assert Pacer(0).wait_s(1e9) == 0


def test_speed_divides_the_wait() -> None:
    assert Pacer(1).wait_s(100) == pytest.approx(100, abs=1)
    assert Pacer(50).wait_s(100) == pytest.approx(2, abs=0.5)
    assert Pacer(1).wait_s(-5) == 0


def test_real_time_starts_with_this_minute() -> None:
    assert start_for(1, 60, NOW) == datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(("speed", "minutes"), [(0, 60), (60, 600), (2, 7)])
def test_no_reading_lies_in_the_future_when_it_is_sent(speed: float, minutes: int) -> None:
    start = start_for(speed, minutes, NOW)
    takes = timedelta(minutes=minutes / speed) if speed else timedelta()
    assert NOW + takes - timedelta(minutes=2) < start + timedelta(minutes=minutes) <= NOW + takes


def test_percentiles_are_within_a_twentieth() -> None:
    latencies = Latencies()
    assert latencies.percentile_ms(50) is None
    for n in range(1, 1001):
        latencies.add(n / 1000)
    assert latencies.percentile_ms(50) == pytest.approx(500, rel=0.06)
    assert latencies.percentile_ms(99) == pytest.approx(990, rel=0.06)


def test_summary_names_rate_unacked_latencies_and_rejects() -> None:
    tally = Tally(sent=2000, pubacks=1500, rejected=7)
    tally.puback_latency.add(0.01, 1500)
    line = summary(tally, 250)
    assert "2,000 readings" in line
    assert "250/s" in line
    assert "unacked 500" in line
    assert "PUBACK p50/95/99" in line
    assert "rejects reported 7" in line


def test_broker_url_names_account_and_default_port() -> None:
    broker = broker_of("mqtt://gate%40way:p%3Aw@broker", None)
    assert broker == ("broker", 1883, "gate@way", b"p:w", None)
    assert broker_of("mqtts://broker", None).port == 8883
    assert broker_of("mqtts://broker", None).tls is not None


@pytest.mark.parametrize("url", ["http://broker", "broker:1883", "mqtt://", ""])
def test_url_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must have the form"):
        broker_of(url, None)
