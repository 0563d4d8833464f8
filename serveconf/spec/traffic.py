"""The part of the spec that says who gets which request: ``match`` and ``mirror``, as frozen pydantic models."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from serveconf.spec.checks import (
    MATCH_HOST,
    METHOD,
    check_header_values,
    check_match_host,
    check_method,
)
from serveconf.spec.kinds import Cost, Name, Strict, costs, pattern


class MatchSpec(Strict):
    """Which of the requests below the prefix a deployment takes; the others go on to whoever is less specific."""

    hosts: list[Annotated[str, AfterValidator(check_match_host), pattern(MATCH_HOST)]] = Field(
        default=[], examples=[["a.example", "*.b.example"]], json_schema_extra=costs(Cost.ROUTE)
    )
    """Host names, without a port; *.b.example takes every name that ends in .b.example. Empty: any host."""
    methods: list[Annotated[str, AfterValidator(check_method), pattern(METHOD)]] = Field(
        default=[], examples=[["GET", "POST"]], json_schema_extra=costs(Cost.ROUTE)
    )
    """Methods; GET takes HEAD and WebSockets too. Empty: any method."""
    headers: Annotated[dict[str, str | None], AfterValidator(check_header_values)] = Field(
        default={}, examples=[{"x-beta": "1", "x-any": None}], json_schema_extra=costs(Cost.ROUTE)
    )
    """Header fields, all of which must have exactly that value; null: any value."""
    query: dict[str, str | None] = Field(
        default={}, examples=[{"v": "2", "debug": None}], json_schema_extra=costs(Cost.ROUTE)
    )
    """Query parameters, all of which must have exactly that value (of a repeated one the first counts); null: any value."""


class MirrorSpec(Strict):
    """Copies of requests that another deployment gets too; its answers are dropped."""

    deployment: Name = Field(examples=["catalog-next"], json_schema_extra=costs(Cost.ROUTE))
    """The deployment of the same stack that gets the copies; it needs no route_prefix."""
    percent: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = Field(
        default=100.0, examples=[10, 100], json_schema_extra=costs(Cost.ROUTE)
    )
    """Share of the requests that is copied."""
