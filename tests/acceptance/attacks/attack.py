"""An attack, and what the attacker has: a device with a certificate, a key limited to this device, addresses.

Some attackers have more devices, each with a certificate and a key of its own.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

ATTACKER = "ATTACKER"
"""The id of the attacker's vehicle. The ids of further ones begin with it."""
_PAUSE_AFTER_CUT_S = 0.02


@dataclass(frozen=True)
class Target:
    """Where the stack can be reached, and the attacker's credentials."""

    api_port: int
    tls_port: int
    credentials: str
    """The directory with the device's key and certificate."""
    key: str
    """An API key with the scopes `ingest` and `read`, limited to the device."""
    mqtt_bytes_per_s: float
    """What the device's line, or a proxy before the broker, passes; 0: as much as the broker reads."""
    vehicle: str = ATTACKER
    others: Sequence[Mapping[str, str]] = ()
    """The `vehicle`, `credentials` and `key` of each further device. Its key sees all of the attacker's devices."""

    @property
    def topic(self) -> str:
        """Of the device's telemetry."""
        return f"fleet/vehicle/{self.vehicle}/telemetry"

    def own(self, payload: bytes) -> bytes:
        """A payload that was made for the first device, for this one."""
        return payload.replace(f'"{ATTACKER}"'.encode(), f'"{self.vehicle}"'.encode())

    def each(self) -> list["Target"]:
        """A target for each device. They share the line."""
        alone = replace(self, mqtt_bytes_per_s=self.mqtt_bytes_per_s / (1 + len(self.others)), others=())
        return [
            alone,
            *(
                replace(alone, vehicle=other["vehicle"], credentials=other["credentials"], key=other["key"])
                for other in self.others
            ),
        ]


Done: TypeAlias = Counter[str]
"""What came of the attacker's attempts: statuses, `cut`, what was sent."""


@dataclass(frozen=True)
class Attack:
    """One attack. `point` is the kind, `run` goes on until its time (monotonic clock) is over or it is cancelled."""

    name: str
    point: str
    what: str
    run: Callable[[Target, Done], Awaitable[None]]
    most_disk_mib: float = 64.0


async def repeat(workers: int, once: Callable[[int], Awaitable[str]], done: Done) -> None:
    """`workers` at a time call `once` with their number, again and again, and count what it returns."""

    async def work(number: int) -> None:
        while True:
            try:
                done[await once(number)] += 1
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                done["cut"] += 1
                await asyncio.sleep(_PAUSE_AFTER_CUT_S)

    await asyncio.gather(*map(work, range(workers)))


async def run_for(attack: Attack, target: Target, seconds: float) -> tuple[Done, float]:
    """Run the attack for so long; what it did, and the seconds that it really took."""
    done: Done = Counter()
    began = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await attack.run(target, done)
    return done, time.monotonic() - began
