"""Models of rejected messages and of their replay."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.period import Instant
from bridge.replay import Ending

MOST_REPLAYED = 100
"""Messages that one request may replay."""


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


class Reject(_Model):
    """A rejected message, without its payload."""

    id: UUID
    received_at: Instant
    source: Annotated[str, Field(description="How it came: `mqtt`, `http` or another source of the bridge.")]
    topic: Annotated[str | None, Field(description="Shortened to 256 characters; null if it came over HTTP.")]
    kind: Annotated[
        str | None, Field(description="Kind of the device, if the topic says it or the message is a valid reading.")
    ]
    device: Annotated[
        str | None,
        Field(description="Device of the topic, else the one that the message names; null if it names none."),
    ]
    sender: Annotated[
        str | None,
        Field(
            description="Id of the API key that sent it; null if it came over MQTT, or is a valid reading that was "
            "refused when it was stored, such as a conflict."
        ),
    ]
    reason: str
    detail: Annotated[str, Field(description="The field and what is wrong with it.")]
    format: Annotated[str, Field(description="Format of the payload: `json`, `ndjson` or another one of the bridge.")]
    bytes: Annotated[int, Field(description="Size of the payload.")]
    replayed_at: Instant | None


class RejectPage(_Model):
    """Rejected messages, the newest first."""

    items: list[Reject]
    next_cursor: str | None
    not_kept: Annotated[
        int | None,
        Field(
            description="Messages beyond the quotas that were counted and not kept: those of the same filters, without "
            "`topic` and `replayed`, in the hours of the period. Null for a limited key."
        ),
    ]


class Payload(_Model):
    """What was received."""

    encoding: Annotated[
        Literal["utf-8", "base64"], Field(description="`base64` of the bytes if they are no text in UTF-8.")
    ]
    content: str
    shortened: Annotated[bool, Field(description="Whether `content` has only the first 65,536 bytes.")]


class RejectWithPayload(Reject):
    """A rejected message with its payload."""

    payload: Payload


class ReplayBody(BaseModel):
    """Which messages to replay."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    ids: Annotated[
        list[Annotated[UUID, Field(strict=False)]],
        Field(min_length=1, max_length=MOST_REPLAYED, description="Ids of rejected messages."),
    ]
    dry_run: Annotated[bool, Field(description="Only answer what would happen.")] = False
    even_forbidden: Annotated[
        bool, Field(description="Also store readings whose sender was not allowed to report the device.")
    ] = False


class ReplayResult(_Model):
    """What happened to a message, or with `dryRun` would happen."""

    id: UUID
    outcome: Annotated[
        Ending | Literal["left"],
        Field(
            description="`stored`: all of its readings are in the history. `partly`: some are; each of the other "
            "elements is a reject of its own now. `rejected`: rejected again, and still pending. `forbidden`: skipped, "
            "because its sender was not allowed to report the device. `replayed`: skipped, because it was replayed "
            "before. `busy`: skipped, because another replay has it. `unknown`: no reject has this id. `left`: not "
            "tried, because the request would have taken too long."
        ),
    ]
    stored: Annotated[int, Field(description="Readings that this replay stored.")]
    duplicates: Annotated[int, Field(description="Readings that were in the history already.")]
    rejected: Annotated[int, Field(description="Elements that were rejected again.")]
    detail: Annotated[str, Field(description="Why a part of it is not stored; empty if all of it is.")]


class ReplayAnswer(_Model):
    """The result for each id, in the order of the request."""

    dry_run: bool
    items: list[ReplayResult]
