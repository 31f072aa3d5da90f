"""Models of alarms, of their rules and of webhooks."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from api.patterns import KIND_PATTERN, MEASURE_PATTERN
from api.period import Instant
from api.register_models import Text
from bridge.alarms.measures import MEASURES, Direction, Severity
from bridge.reading import DEVICE_ID_PATTERN

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
MOST_FOR_S = 7 * 86_400
_MEANINGS = " ".join(f"`{m.name}` ({m.unit}): {m.meaning}" for m in MEASURES.values())

Measure = Annotated[str, Field(pattern=MEASURE_PATTERN, description=_MEANINGS, examples=["batteryTemp"])]
Bound = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
KindName = Annotated[str, Field(pattern=KIND_PATTERN)]


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Alarm(_Model):
    """An alarm. It is open until `clearedAt`."""

    id: int
    rule: str
    severity: Severity
    kind: Annotated[str | None, Field(description="Kind of the device; null if the alarm concerns none.")]
    device: str | None
    site: Annotated[str | None, Field(description="The device's site when the alarm was raised.")]
    raised_at: Instant
    cleared_at: Instant | None
    acknowledged_at: Instant | None
    acknowledged_by: Annotated[str | None, Field(description="Name of the API key.")]
    note: str | None
    value: Annotated[float, Field(description="The value at which it was raised.")]
    bound: Annotated[float, Field(description="The rule's `raiseAt` at that time.")]
    unit: Annotated[str, Field(description="Of `value` and `bound`.")]
    message: str


class AlarmPage(_Model):
    """Alarms, the newest first."""

    items: list[Alarm]
    next_cursor: str | None


class Acknowledgement(_Body):
    """What a person says about an alarm."""

    note: Annotated[str, StringConstraints(max_length=2_000)] | None = None


class RuleBody(_Body):
    """A rule in a request."""

    measure: Measure
    direction: Annotated[Direction, Field(description="The side of `raiseAt` on which an alarm is raised.")]
    raise_at: Annotated[Bound, Field(description="An alarm is raised when the value is beyond this bound.")]
    clear_at: Annotated[Bound, Field(description="It is cleared when the value has returned to this bound.")]
    for_s: Annotated[
        int, Field(ge=0, le=MOST_FOR_S, description="An alarm is raised when the condition has lasted so long, s.")
    ] = 0
    severity: Severity
    enabled: bool = True
    kind: Annotated[KindName | None, Field(description="Only devices of this kind.")] = None
    site: Annotated[Text | None, Field(description="Only devices that are declared at this site.")] = None
    device: Annotated[str | None, Field(pattern=DEVICE_ID_PATTERN, description="Only the device with this id.")] = None


class Rule(_Model):
    """A rule that the keeper judges."""

    name: str
    measure: Measure
    direction: Direction
    raise_at: float
    clear_at: float
    for_s: Annotated[int, Field(description="How long the condition must last before an alarm is raised, s.")]
    unit: Annotated[str, Field(description="Of both bounds.")]
    severity: Severity
    enabled: bool
    kind: str | None
    site: str | None
    device: str | None


class RuleList(_Model):
    """All rules by name."""

    items: list[Rule]


class WebhookBody(_Body):
    """A webhook in a request."""

    url: Annotated[str, Field(max_length=2_000, examples=["https://example.com/alarms"])]


class Webhook(_Model):
    """A receiver of notifications."""

    id: str
    url: str
    created_at: Instant
    disabled_at: Annotated[Instant | None, Field(description="When its receiver answered 410 Gone.")]
    pending: Annotated[int, Field(description="Notifications that are still to be delivered.")]
    failed: Annotated[int, Field(description="Notifications that were given up.")]


class WebhookList(_Model):
    """All webhooks by the time of their creation."""

    items: list[Webhook]


class CreatedWebhook(_Model):
    """A new webhook with its secret, which is shown only here."""

    id: str
    url: str
    created_at: Instant
    secret: Annotated[str, Field(description="Key of the signatures: whsec_ and the base64 of 32 bytes.")]


State = Literal["open", "cleared", "all"]

BODY_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"description": "Not JSON"},
    408: {"description": "The body did not arrive in time"},
    413: {"description": "The body is too large"},
    415: {"description": "Unsupported Content-Encoding"},
}
"""What an operation with one of these bodies may answer."""
