"""The readings that the benchmarks send: consecutive minutes of a fleet. Pure arithmetic, so that all processes of a
run compute the same readings.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from bridge.contract import VEHICLE, Kind
from bridge.reading import DeviceId, Reading, device_id, reading
from bridge.store.tables import Row

Message = tuple[str, bytes]


class Load(NamedTuple):
    """`messages` messages of `per_message` readings each, of all devices in turn; vehicles and meters alternate.

    With a `stride` coprime to `devices` they report in a scattered order instead of that of their names. A device's
    readings are `step_s` seconds apart. The first one is earlier than `now` by the steps that the devices need for all
    messages, the last one by one step.
    """

    messages: int
    devices: int
    now: datetime
    per_message: int = 1
    stride: int = 1
    step_s: int = 60

    @property
    def readings(self) -> int:
        return self.messages * self.per_message

    def message(self, n: int) -> Message:
        """Topic and payload of message `n`."""
        turn, device = divmod(n, self.devices)
        step = timedelta(seconds=self.step_s)
        device = device * self.stride % self.devices
        first = self.first_at + turn * self.per_message * step
        kind = ("vehicle", "meter")[device % 2]
        objects = [self._payload(device, first + m * step) for m in range(self.per_message)]
        payload = objects[0] if self.per_message == 1 else f"[{','.join(objects)}]"
        return f"fleet/{kind}/{_name(device)}/telemetry", payload.encode()

    @property
    def first_at(self) -> datetime:
        """The time of the first reading."""
        turns = -(-self.messages // self.devices)
        return self.now - timedelta(seconds=turns * self.per_message * self.step_s)

    def _payload(self, device: int, at: datetime) -> str:
        ts = at.isoformat()[:19]
        x = (device * 31 + (at.minute + at.second) * 7) % 1000 / 10
        if device % 2:
            return (
                f'{{"meterId":"{_name(device)}","kwhConsumedAc":{x / 10},"voltage":{200 + x / 2},"timestamp":"{ts}Z"}}'
            )
        return (
            f'{{"vehicleId":"{_name(device)}","soc":{x},"kwhDeliveredDc":{x / 20},"batteryTemp":{20 + x / 5},'
            f'"timestamp":"{ts}Z"}}'
        )


def _name(device: int) -> str:
    return f"{('EV', 'METER')[device % 2]}_{device:06d}"


def this_minute() -> datetime:
    """The minute that has just begun, UTC."""
    return datetime.now(UTC).replace(second=0, microsecond=0)


def vehicle_name(number: int) -> DeviceId:
    return device_id(f"EV_{number:06d}")


def vehicle_minutes(devices: int, minutes: int, shuffled: list[int]) -> list[Reading]:
    """A reading of every vehicle for each minute up to now, within each minute in the order of `shuffled`."""
    start = this_minute() - timedelta(minutes=minutes)
    return [
        reading(
            VEHICLE,
            vehicle_name(d),
            start + timedelta(minutes=m),
            {"soc": d % 1000 / 10, "kwh_delivered_dc": d % 77 / 10, "battery_temp": 20 + d % 300 / 10},
        )
        for m in range(minutes)
        for d in shuffled[:devices]
    ]


def history_rows(readings: list[Reading], received_at: datetime) -> list[Row]:
    """The rows of the vehicles' history, in the order of its key, which is optimal for COPY."""
    return sorted((*r, received_at) for r in readings)


def seed_columns(kind: Kind) -> list[str]:
    """The measures of the seed's payloads, which the loads consist of."""
    return [measure.column for measure in kind.measures if measure.example is not None]


HISTORY_COLUMNS = [VEHICLE.id_column, "ts", *seed_columns(VEHICLE), "extra", "received_at"]
