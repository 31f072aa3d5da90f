"""The patterns of names in requests, and what an error says that they require."""

from api.auth import ID_PATTERN
from api.sight import PATTERN
from bridge.alarms.measures import MEASURES
from bridge.contract import KIND_OF
from bridge.reading import DEVICE_ID_PATTERN, DEVICE_ID_RULE

# Control characters and line separators; pydantic refuses lone surrogates.
_CONTROL = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
TEXT_PATTERN = f"^[^{_CONTROL}]+$"
TAG_PATTERN = rf"^[^\s;{_CONTROL}]([^;{_CONTROL}]*[^\s;{_CONTROL}])?$"
TIME_ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}$"
KIND_PATTERN = f"^({'|'.join(KIND_OF)})$"
MEASURE_PATTERN = f"^({'|'.join(MEASURES)})$"
RULE_PATTERN = r"^[a-z][a-z0-9-]{0,63}$"
WEBHOOK_PATTERN = r"^wh_[0-9a-f]{16}$"

REQUIRED = {
    DEVICE_ID_PATTERN: DEVICE_ID_RULE,
    PATTERN: "Input should be a device id, a prefix as in EV_*, or either after a kind, as in vehicle:EV_1",
    TEXT_PATTERN: "Input should have at least one character, and no control character",
    TAG_PATTERN: "Tags have no semicolon, no control character, and no space at an end",
    TIME_ZONE_PATTERN: "Input should be an IANA time zone, as in Europe/Berlin",
    KIND_PATTERN: f"Input should be {' or '.join(KIND_OF)}",
    MEASURE_PATTERN: f"Input should be one of {', '.join(MEASURES)}",
    RULE_PATTERN: "Rule names have 1 to 64 lower-case letters, digits and -, a letter first",
    ID_PATTERN: "Key ids have 12 lower-case letters and digits",
    WEBHOOK_PATTERN: "Webhook ids are wh_ and 16 hexadecimal digits",
}
"""By pattern: what its text should be, for people."""
