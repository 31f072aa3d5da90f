"""What an attack did, compared with the bars."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from tests.acceptance.attacks.attack import Attack
from tests.acceptance.attacks.victim import Waits

WAIT_S = 1.0
PROCESS_MIB = 512.0


@dataclass(frozen=True)
class Bars:
    """What an attack may cost the others."""

    wait_s: float
    mib: Mapping[str, float]
    """The memory of each process."""


def bars(wait_s: float = WAIT_S) -> Bars:
    """512 MiB for each process; for the broker its own limit, if mosquitto.conf has one."""
    conf = (files("mosquitto") / "mosquitto.conf").read_text()
    found = re.search(r"^memory_limit (\d+)$", conf, re.MULTILINE)
    broker = int(found[1]) / 2**20 if found else PROCESS_MIB
    return Bars(wait_s, {"bridge": PROCESS_MIB, "api": PROCESS_MIB, "broker": broker})


@dataclass(frozen=True)
class Outcome:
    """One attack's figures."""

    attack: Attack
    waits: Waits
    peaks_mib: Mapping[str, float]
    kernel_mib: float
    disk_mib: float
    done: Mapping[str, int]
    took_s: float
    ended: str | None = None
    """A process of the stack that has ended."""

    def breaches(self, bars: Bars) -> list[str]:
        """What exceeds the bars, in words; empty if nothing does."""
        waits = {"MQTT": self.waits.mqtt_s, "HTTP": self.waits.http_s, "live": self.waits.live_s}
        found = [f"{name} waited {wait:.1f} s" for name, wait in waits.items() if wait >= bars.wait_s]
        found += [f"{name} took {peak:.0f} MiB" for name, peak in self.peaks_mib.items() if peak >= bars.mib[name]]
        if self.disk_mib > self.attack.most_disk_mib:
            found.append(f"the disk grew by {self.disk_mib:.0f} MiB")
        if self.waits.never:
            found.append(f"{self.waits.never} of {self.waits.sent} readings were not stored")
        if self.ended is not None:
            found.append(f"{self.ended} has ended")
        return found

    def row(self, bars: Bars) -> str:
        """A row of the table."""
        peaks = " | ".join(f"{self.peaks_mib[name]:.0f}" for name in ("bridge", "api", "broker"))
        waits = " | ".join(f"{wait:.2f}" for wait in (self.waits.mqtt_s, self.waits.http_s, self.waits.live_s))
        figures = f"{waits} | {peaks} | {self.kernel_mib:.0f} | {self.disk_mib:.0f}"
        return f"| {self.attack.name} | {figures} | {'; '.join(self.breaches(bars))} |"


HEADER = (
    "| attack | MQTT, s | HTTP, s | live, s | bridge, MiB | API, MiB | broker, MiB | kernel, MiB | disk, MiB "
    "| above the bar |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
