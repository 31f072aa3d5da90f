"""`make up` in a terminal of 80 columns: its status line, and hints that do not wrap."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.formats.contract_json import encode
from local.live import LiveLine
from local.parts import Part
from local.platform import Platform
from local.ports import free_port
from tests.acceptance.up import PORTS
from tests.bridges import environment
from tests.readings import minutes
from tests.terminal import COLUMNS, Terminal, start, terminal
from tests.until import wait_until


@pytest.fixture
def screen() -> Iterator[Terminal]:
    with terminal() as shown:
        yield shown


def last_line(screen: Terminal) -> str:
    return screen.lines[-1]


# -- make up


@pytest.mark.parametrize("options", [[], ["up", "--stream", "nats"]], ids=["broker", "stream"])
def test_what_make_up_prints_does_not_wrap(screen: Terminal, options: list[str]) -> None:
    """With directories of usual length; a long path is on a line of its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        directory = Path(short) / "local"
        ports = {name: str(free_port()) for name in PORTS}
        env = environment(local_dir=directory, sim_vehicles=3) | ports
        up = start([sys.executable, "-m", "local", *options], env, screen)
        try:
            wait_until(lambda: up.poll() is not None or "vehicles live" in last_line(screen), "the status line", 120)
            assert up.poll() is None, screen.text
            up.send_signal(signal.SIGINT)
            assert up.wait(60) == 0
        finally:
            up.kill()
            up.wait()
    assert "Ctrl-C stops the platform." in screen.lines
    too_long = [line for line in screen.lines if len(line) > COLUMNS and sys.executable not in line]
    assert too_long == []


def after_show(line: LiveLine, screen: Terminal, expected: str) -> str:
    """Show the line until it says this; return it."""

    def shown() -> str:
        line.show()
        text = last_line(screen)
        assert len(text) < COLUMNS
        return text if expected in text else ""

    return wait_until(shown, expected, 60)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (lambda platform: platform.postgres, "not well: the database does not accept connections"),
        (lambda platform: platform.broker, "not well: the broker does not accept connections"),
        (lambda platform: platform.bridge, "not well: the bridge: no answer"),
        (lambda platform: platform.keeper, "not well: the keeper: no answer"),
        (lambda platform: platform.api, "not well: the api: no answer"),
    ],
)
def test_status_line_names_the_part_that_is_not_well(
    platform: Platform, screen: Terminal, part: Callable[[Platform], Part], expected: str
) -> None:
    line, stopped = LiveLine(platform, screen.file), part(platform)
    after_show(line, screen, "vehicles live")
    stopped.stop()
    try:
        after_show(line, screen, expected)
    finally:
        stopped.start()
    after_show(line, screen, "vehicles live")


def test_status_line_says_why_the_bridge_is_not_ready(platform: Platform, screen: Terminal) -> None:
    """The database accepts connections, but not the bridge's."""
    line, postgres = LiveLine(platform, screen.file), platform.postgres
    postgres.sql("ALTER ROLE bridge NOLOGIN")
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bridge'")
    try:
        publish(platform)
        assert "the bridge: database unavailable" in after_show(line, screen, "not well: the bridge")
    finally:
        postgres.sql("ALTER ROLE bridge LOGIN")
    after_show(line, screen, "vehicles live")


def publish(platform: Platform) -> None:
    """One reading, so that the bridge needs its database."""
    (reading,) = minutes("EV_1", 1)
    command = ["mosquitto_pub", "-V", "5", "-q", "1", "-L", f"{platform.broker.url}/fleet/vehicle/EV_1/telemetry"]
    subprocess.run([*command, "-m", encode(reading).decode()], check=True, timeout=30)


def test_status_line_is_cut_to_a_narrow_terminal(platform: Platform, screen: Terminal) -> None:
    platform.bridge.stop()
    platform.keeper.stop()
    platform.api.stop()
    try:
        text = after_show(LiveLine(platform, screen.file), screen, "not well: the bridge: no answer; the api")
        assert len(text) < COLUMNS
    finally:
        for service in (platform.api, platform.keeper, platform.bridge):
            service.start()
