"""The part of the spec that says how a deployment's number of replicas follows its load."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from serveconf.spec.checks import (
    SCHEDULE_END,
    SCHEDULE_START,
    check_schedule_end,
    check_schedule_start,
    check_timezone,
)
from serveconf.spec.cost import Cost
from serveconf.spec.kinds import ImportPath, PositiveFactor, Replicas, Seconds, SomeReplicas, Strict, costs, pattern

AUTO_MAX_REPLICAS = 100  # what num_replicas: auto means where nothing else is said, as in Ray Serve
ROOM_OVER_TARGET = 1.5  # max_ongoing_requests as a multiple of the target, where only the latter is said


class ScheduleSpec(Strict):
    """Other bounds for a part of the week."""

    from_: Annotated[str, AfterValidator(check_schedule_start), pattern(SCHEDULE_START)] = Field(
        alias="from", examples=["Mon-Fri 08:00", "08:00", "Sat,Sun 10:30"], json_schema_extra=costs(Cost.SCALE)
    )
    """When it begins: days of the week and a time of day. Without days: every day."""
    until: Annotated[str, AfterValidator(check_schedule_end), pattern(SCHEDULE_END)] = Field(
        examples=["18:00", "24:00", "06:00"], json_schema_extra=costs(Cost.SCALE)
    )
    """The time of day at which it ends; a time that is not after `from` is one of the next day."""
    timezone: Annotated[str, AfterValidator(check_timezone)] = Field(
        default="UTC", examples=["UTC", "Europe/Berlin"], json_schema_extra=costs(Cost.SCALE)
    )
    """Where these times are meant, as the IANA database names it; daylight saving is kept to."""
    min_replicas: Replicas | None = Field(default=None, examples=[None, 4], json_schema_extra=costs(Cost.SCALE))
    """Fewest replicas meanwhile; null: as ever."""
    max_replicas: SomeReplicas | None = Field(default=None, examples=[None, 20], json_schema_extra=costs(Cost.SCALE))
    """Most replicas meanwhile; null: as ever."""


class AutoscalingConfig(Strict):
    """How the number of replicas follows the load."""

    min_replicas: Replicas = Field(default=1, examples=[1, 0], json_schema_extra=costs(Cost.SCALE))
    """Fewest replicas; 0: down to none, and a request that comes then waits at the proxy while a replica starts."""
    max_replicas: SomeReplicas = Field(
        default=1,
        examples=[10],
        json_schema_extra=costs(Cost.SCALE, default="1; with `num_replicas: auto` 100"),
    )
    """Most replicas."""
    initial_replicas: Replicas | None = Field(default=None, examples=[None, 2], json_schema_extra=costs(Cost.SCALE))
    """Replicas to begin with; null: min_replicas, and at least 1 at the first apply."""
    target_ongoing_requests: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=2.0, examples=[2], json_schema_extra=costs(Cost.SCALE)
    )
    """Running and waiting requests that one replica should have, on average."""
    upscale_delay_s: Seconds = Field(default=1.0, examples=[1], json_schema_extra=costs(Cost.NONE))
    """Seconds the load must ask for more replicas before they are added; a queue that stands does not wait for it."""
    downscale_delay_s: Seconds = Field(default=60.0, examples=[60], json_schema_extra=costs(Cost.NONE))
    """Seconds the load must ask for fewer replicas before they are drained."""
    downscale_to_zero_delay_s: Seconds | None = Field(
        default=None, examples=[None, 300], json_schema_extra=costs(Cost.NONE)
    )
    """Seconds without any request before the last replica is drained; null: downscale_delay_s."""
    upscaling_factor: PositiveFactor = Field(default=1.0, examples=[1, 0.5], json_schema_extra=costs(Cost.NONE))
    """How much of the missing replicas is added at once; more than 1 overshoots."""
    downscaling_factor: PositiveFactor = Field(default=1.0, examples=[1, 0.5], json_schema_extra=costs(Cost.NONE))
    """How much of the surplus is drained at once."""
    max_upscale_step: SomeReplicas | None = Field(default=None, examples=[None, 4], json_schema_extra=costs(Cost.NONE))
    """At most so many replicas more at once; null: no limit."""
    policy: ImportPath | None = Field(
        default=None, examples=[None, "shop.scaling:replicas"], json_schema_extra=costs(Cost.SCALE)
    )
    """A rule of your own instead of the target: module:function, called with the load, answers a number of replicas."""
    schedule: list[ScheduleSpec] = Field(
        default=[],
        examples=[[{"from": "Mon-Fri 08:00", "until": "18:00", "timezone": "Europe/Berlin", "min_replicas": 4}]],
        json_schema_extra=costs(Cost.SCALE),
    )
    """Other bounds at certain times; of those that hold at one time the first counts."""
    dry_run: bool = Field(default=False, examples=[False, True], json_schema_extra=costs(Cost.SCALE))
    """Only record what would be decided, in events and status; the number stays at initial_replicas."""
