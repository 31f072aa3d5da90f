"""The shapes of assignments in requests."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from api.period import Instant
from api.register_models import Imported
from bridge.reading import DEVICE_ID_PATTERN

_Id = Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]
_End = Annotated[
    Instant | None,
    Field(alias="to", description="End, not included. Null or absent: until the meter's next assignment."),
]


class NewAssignment(BaseModel):
    """The vehicle that the meter feeds from this time on; null for none."""

    model_config = ConfigDict(extra="forbid", strict=True)

    vehicle_id: Annotated[_Id | None, Field(alias="vehicleId", examples=["EV_002"])]
    end: _End = None


class AssignmentEnd(BaseModel):
    """The end of an assignment; null removes an explicit end."""

    model_config = ConfigDict(extra="forbid", strict=True)

    end: Annotated[Instant | None, Field(alias="to", description="End, not included; null: no explicit end.")] = None


class AssignmentRow(BaseModel):
    """An assignment in an import."""

    model_config = ConfigDict(extra="forbid", strict=True)

    meter_id: Annotated[_Id, Field(alias="meterId", examples=["METER_001"])]
    vehicle_id: Annotated[
        _Id | None, Field(alias="vehicleId", examples=["EV_002"], description="Null or an empty cell: none.")
    ]
    start: Annotated[Instant, Field(alias="from")]
    end: _End = None


class ImportedAssignments(Imported):
    """The result of an import of assignments. The counts of rows concern the assigned vehicles, not the ends."""

    ends: Annotated[int, Field(description="Number of ends that were set, moved or removed.")]
