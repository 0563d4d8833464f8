"""The parts of the spec that say what replicas ask of Ray and how their processes write log lines, as frozen pydantic models."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from serveconf.spec.checks import check_resources, check_runtime_env
from serveconf.spec.cost import Cost
from serveconf.spec.kinds import (
    Amount,
    LabelCondition,
    Strict,
    costs,
)


class GroupStrategy(StrEnum):
    """How the bundles of a placement group lie on the nodes. Names and meanings are Ray's."""

    PACK = "PACK"  # on as few nodes as possible
    SPREAD = "SPREAD"  # on as many as possible
    STRICT_PACK = "STRICT_PACK"  # on one node
    STRICT_SPREAD = "STRICT_SPREAD"  # each on a node of its own


def group_strategy(value: Any) -> Any:
    """YAML has strings where Python has the enum."""
    if isinstance(value, str):
        if value not in {kind.value for kind in GroupStrategy}:
            raise PydanticCustomError("choice", "must be PACK, SPREAD, STRICT_PACK, STRICT_SPREAD or null")
        return GroupStrategy(value)
    return value


class FallbackSpec(Strict):
    """Which nodes will do where those of label_selector have no room."""

    label_selector: dict[str, LabelCondition] = Field(examples=[{"zone": "b"}, {}], json_schema_extra=costs(Cost.ROLL))
    """Labels that the node must have, as in label_selector; none: any node."""


class RayActorOptions(Strict):
    """What each replica asks of Ray. Names and meanings are Ray's."""

    num_cpus: Amount = Field(default=0.1, examples=[0.1, 1], json_schema_extra=costs(Cost.ROLL))
    """CPUs reserved for each replica. 0.1, because a served app mostly waits and a change starts new before old."""
    num_gpus: Amount = Field(default=0.0, examples=[0, 1], json_schema_extra=costs(Cost.ROLL))
    """GPUs reserved for each replica."""
    memory: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, examples=[None, 536870912], json_schema_extra=costs(Cost.ROLL)
    )
    """Bytes of memory reserved for each replica."""
    resources: Annotated[dict[str, Amount], AfterValidator(check_resources)] = Field(
        default={}, examples=[{"accelerator": 1}], json_schema_extra=costs(Cost.ROLL)
    )
    """Custom resources reserved for each replica."""
    accelerator_type: str | None = Field(default=None, examples=[None, "A100"], json_schema_extra=costs(Cost.ROLL))
    """Kind of accelerator that the node must have."""
    runtime_env: Annotated[dict[str, Any], AfterValidator(check_runtime_env)] = Field(
        default={}, examples=[{"env_vars": {"LOG_LEVEL": "info"}}], json_schema_extra=costs(Cost.ROLL)
    )
    """Ray runtime environment: env_vars, pip, …. working_dir and py_modules are serveconf's own business (app_dir)."""
    label_selector: dict[str, LabelCondition] = Field(
        default={}, examples=[{"zone": "a"}, {"zone": "!in(a, b)"}], json_schema_extra=costs(Cost.ROLL)
    )
    """Labels that the node must have: each is a value, !value, in(a, b) or !in(a, b)."""
    fallback_strategy: list[FallbackSpec] = Field(
        default=[],
        examples=[[{"label_selector": {"zone": "b"}}, {"label_selector": {}}]],
        json_schema_extra=costs(Cost.ROLL),
    )
    """Tried one after the other where no node of label_selector has room."""


class LogLevel(StrEnum):
    """The least level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    """How a line is written."""

    TEXT = "text"
    JSON = "json"


def _level(value: Any) -> Any:
    if isinstance(value, str):
        if value.lower() not in {level.value for level in LogLevel}:
            raise PydanticCustomError("choice", "must be debug, info, warning, error or critical")
        return LogLevel(value.lower())
    return value


def _format(value: Any) -> Any:
    if isinstance(value, str):
        if value not in {form.value for form in LogFormat}:
            raise PydanticCustomError("choice", "must be text or json")
        return LogFormat(value)
    return value


class LoggingSpec(Strict):
    """Log lines of the replicas: the app's own, by Python's logging, and serveconf's."""

    level: Annotated[LogLevel, BeforeValidator(_level, json_schema_input_type=LogLevel)] = Field(
        default=LogLevel.INFO, examples=["info", "debug"], json_schema_extra=costs(Cost.ROLL)
    )
    """The least level that is written, of every logger that sets none of its own."""
    format: Annotated[LogFormat, BeforeValidator(_format, json_schema_input_type=LogFormat)] = Field(
        default=LogFormat.TEXT, examples=["text", "json"], json_schema_extra=costs(Cost.ROLL)
    )
    """A line of text, or a JSON object a line: time, level, logger, message, stack, deployment, replica, and what a line adds."""
