"""What the models are made of: kinds of values, what a change costs, and the strictness of all of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from serveconf.spec.checks import (
    FIELD_NAME,
    IMPORT_PATH,
    LABEL_CONDITION,
    MOST_REPLICAS,
    NAME,
    PERCENT,
    check_bundle,
    check_count_or_percent,
    check_host,
    check_import_path,
    check_label_condition,
    check_name,
    check_path,
    check_prefix,
    check_replica_count,
    check_request_id_header,
    check_root_path,
)
from serveconf.spec.cost import Cost


def pattern(text: str) -> Any:
    """A pattern for the JSON Schema alone: the validator beside it gives the better message."""
    return Field(json_schema_extra={"pattern": text})


ImportPath = Annotated[str, AfterValidator(check_import_path), pattern(IMPORT_PATH)]
LabelCondition = Annotated[str, AfterValidator(check_label_condition), pattern(LABEL_CONDITION)]
Name = Annotated[str, AfterValidator(check_name), pattern(NAME)]
RoutePrefix = Annotated[str, AfterValidator(check_prefix), pattern(r"^/([^\s?#{}%*\\/]+(/[^\s?#{}%*\\/]+)*)?$")]
FieldName = Annotated[
    str, Field(min_length=1, max_length=64), AfterValidator(check_request_id_header), pattern(FIELD_NAME)
]
UrlPath = Annotated[str, AfterValidator(check_path), pattern(r"^/[^\s#]*$")]
RootPath = Annotated[str, AfterValidator(check_root_path), pattern(r"^(/[^\s?#{}%*\\/]+)*$")]
Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(check_host)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bundle = Annotated[dict[str, Amount], AfterValidator(check_bundle)]
PositiveFactor = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Percent = Annotated[str, Field(pattern=PERCENT)]
ReplicaCount = Annotated[
    int | Literal["auto"],
    BeforeValidator(
        check_replica_count,
        json_schema_input_type=Annotated[int, Field(ge=1, le=MOST_REPLICAS)] | Literal["auto"],
    ),
]
Replicas = Annotated[int, Field(ge=0, le=MOST_REPLICAS)]
SomeReplicas = Annotated[int, Field(ge=1, le=MOST_REPLICAS)]
CountOrPercent = Annotated[
    int | str,
    BeforeValidator(check_count_or_percent, json_schema_input_type=Annotated[int, Field(ge=0)] | Percent),
]


def costs(cost: Cost, *, default: str | None = None) -> dict[str, Any]:
    """What changing a field costs, as the JSON Schema carries it; ``default`` where the value alone does not say it."""
    return {"x-change-cost": cost.value} | ({"x-default": default} if default else {})


class Strict(BaseModel):
    """Unknown keys and mistyped values are errors; nothing changes after it was built."""

    # defer_build: a command that checks files needs the validator of the whole, and not one of each part besides
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True, serialize_by_alias=True)
