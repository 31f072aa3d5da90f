"""The shapes of API keys in requests and answers."""

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from api.auth import Scope
from api.keys import Grant, scopes
from api.period import Instant
from api.register_models import Text
from api.sight import PATTERN

_HUNDRED_YEARS_S = 3_153_600_000
_A_DAY_S = 86_400

Devices = Annotated[
    list[Annotated[str, StringConstraints(pattern=PATTERN)]],
    Field(
        min_length=1,
        max_length=1_000,
        description="Ids, prefixes (`EV_*`), or either of one kind (`vehicle:EV_1`). The key sees these only.",
        examples=[["EV_7*", "meter:METER_007"]],
    ),
]
Sites = Annotated[
    list[Text],
    Field(
        min_length=1,
        max_length=200,
        description="The key sees the devices that the register declares at these sites when it is used.",
        examples=[["Depot North"]],
    ),
]


class NewKey(BaseModel):
    """A key that is to be created. With `devices` or `sites` it is limited to them, and has no other scope than
    `ingest` and `read`."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    name: Annotated[Text, Field(description="Name of the key's owner.")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=10)]
    devices: Devices | None = None
    sites: Sites | None = None
    lifetime_s: Annotated[
        int | None, Field(ge=1, le=_HUNDRED_YEARS_S, description="Time until it expires, s; null: it does not.")
    ] = None

    def grant(self) -> Grant:
        """The rights and the lifetime. Raises `ValueError` for a contradictory combination."""
        return Grant(
            scopes(self.scopes),
            None if self.devices is None else tuple(self.devices),
            None if self.lifetime_s is None else timedelta(seconds=self.lifetime_s),
            None if self.sites is None else tuple(self.sites),
        )


class Rotation(BaseModel):
    """How a key is replaced by its successor."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    overlap_s: Annotated[
        int, Field(ge=0, le=_HUNDRED_YEARS_S, description="Time for which the old key stays valid, s.")
    ] = _A_DAY_S
    lifetime_s: Annotated[
        int | None,
        Field(
            ge=1,
            le=_HUNDRED_YEARS_S,
            description="Time until the successor expires, s; null: when the old key would have.",
        ),
    ] = None


class OwnKey(BaseModel):
    """What a caller may know of its own key."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)

    id: str
    name: str
    scopes: Annotated[list[Scope], Field(description="`admin` implies all.")]
    devices: Annotated[list[str] | None, Field(description="The devices that it is limited to.")]
    sites: Annotated[list[str] | None, Field(description="The sites that it is limited to. Null with `devices`: none.")]
    expires_at: Instant | None


class Key(OwnKey):
    """A key without its secret."""

    created_at: Instant
    revoked_at: Instant | None
    last_used_at: Annotated[Instant | None, Field(description="Written every few seconds.")]
    replaces: Annotated[str | None, Field(description="Id of the key that was rotated into this one.")]


class CreatedKey(Key):
    """A key that was just created."""

    key: Annotated[str, Field(description="The complete key. It is not stored, and no other answer has it.")]


class KeyPage(BaseModel):
    """Keys in the order of their creation."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)

    items: list[Key]
    next_cursor: str | None
