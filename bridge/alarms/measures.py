"""What a rule can look at. Pure."""

from typing import Literal, NamedTuple

from bridge.contract import KINDS, METER, VEHICLE, Kind

Direction = Literal["above", "below"]
Severity = Literal["info", "warning", "critical"]


class AlarmMeasure(NamedTuple):
    """A quantity that has a value for each device of its kinds or, without kinds, one for the system."""

    name: str
    unit: str
    title: str
    """Its name in a message."""
    kinds: tuple[Kind, ...]
    meaning: str


SILENCE = AlarmMeasure(
    "silence",
    "intervals",
    "time without a reading",
    KINDS,
    "Time since the newest reading was received or, if there is none, since the device was declared, divided by the "
    "device's interval.",
)
BATTERY_TEMP = AlarmMeasure("batteryTemp", "degC", "battery temperature", (VEHICLE,), "The last known value.")
SOC = AlarmMeasure("soc", "%", "state of charge", (VEHICLE,), "The last known value.")
VOLTAGE = AlarmMeasure("voltage", "V", "voltage", (METER,), "The last known value.")
CLOCK_DRIFT = AlarmMeasure(
    "clockDrift",
    "s",
    "device time minus time of receipt",
    KINDS,
    "Of the newest reading; positive if the device's clock is fast. A delayed reading looks like a slow clock.",
)
REJECTS = AlarmMeasure(
    "rejects", "rejects/h", "rejected readings of the last hour", KINDS, "Their number in the last hour."
)
RELATIVE_POWER = AlarmMeasure(
    "relativePower",
    "x rated power",
    "highest power by registers or energies",
    KINDS,
    "The steepest rise of a register, or the mean power of a quarter hour by its interval energies, over the rated "
    "power; in the last hour that is summarized. Above 1.1 the energy is suspect.",
)
EFFICIENCY = AlarmMeasure(
    "efficiency",
    "kWh/kWh",
    "charging efficiency",
    (VEHICLE,),
    "DC energy into the battery over AC energy of the assigned meters, in the quarter hours of the last summarized "
    "hour in which the meters drew at least 1 kW on average; none below 1 kWh.",
)
CERTIFICATE_DAYS = AlarmMeasure(
    "certificateDays",
    "d",
    "time until a certificate expires",
    (),
    "Of FLEET_ALARM_CERTIFICATE_FILES, the first to expire.",
)
DISK_DAYS = AlarmMeasure(
    "diskDays",
    "d",
    "time until the database reaches its limit",
    (),
    "Until the database has the size FLEET_DATABASE_LIMIT_GIB, if it continues to grow as in the last 7 days.",
)
BRIDGE_OUTAGE = AlarmMeasure(
    "bridgeOutage",
    "s",
    "time in which no bridge worked",
    (),
    "Since a bridge last reported that it is active and ready with a queue that moves; 0 if none has been known for a "
    "week. While it grows, no alarm of silence is raised.",
)
BRIDGES_LOST = AlarmMeasure(
    "bridgesLost",
    "bridges",
    "bridges that do not work while others do",
    (),
    "Bridges that no longer report although they were not stopped, for a day or until one of the same name starts, and "
    "active ones that are not ready. Not known while no bridge works.",
)

LIVE = (SILENCE, BATTERY_TEMP, SOC, VOLTAGE, CLOCK_DRIFT)
SYSTEM = (CERTIFICATE_DAYS, DISK_DAYS, BRIDGE_OUTAGE, BRIDGES_LOST)
MEASURES: dict[str, AlarmMeasure] = {
    measure.name: measure for measure in (*LIVE, REJECTS, RELATIVE_POWER, EFFICIENCY, *SYSTEM)
}
