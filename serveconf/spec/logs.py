"""The part of the spec that says how a replica's process writes its log lines, as frozen pydantic models."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from serveconf.spec.cost import Cost
from serveconf.spec.kinds import Strict, costs


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
