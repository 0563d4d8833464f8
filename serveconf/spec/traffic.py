"""The part of the spec that says who gets which request, as frozen pydantic models: what fits, copies, sessions, canaries."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from serveconf.spec.checks import (
    COOKIE,
    MATCH_HOST,
    METHOD,
    check_cookie,
    check_header_values,
    check_match_host,
    check_method,
    check_steps,
)
from serveconf.spec.cost import Cost
from serveconf.spec.kinds import FieldName, Name, PositiveSeconds, Strict, costs, pattern


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


class SessionAffinitySpec(Strict):
    """Requests of one session go to one replica: the same at every proxy, and another one only where that is full or gone."""

    header: FieldName | None = Field(
        default="x-session-id", examples=["x-session-id", "x-user", None], json_schema_extra=costs(Cost.ROUTE)
    )
    """Header whose value names the session; null: none does."""
    cookie: Annotated[str, AfterValidator(check_cookie), pattern(COOKIE)] | None = Field(
        default=None, examples=[None, "replica"], json_schema_extra=costs(Cost.ROUTE)
    )
    """Cookie that names the session where the header does not; the proxy gives one to a client that has none."""


class CanarySpec(Strict):
    """A change is tried on a share of the requests first, and judged against the old version over the same moments."""

    steps: Annotated[list[Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)]], AfterValidator(check_steps)] = (
        Field(default=[5.0, 25.0, 50.0], examples=[[5, 25, 50], [10]], json_schema_extra=costs(Cost.NONE))
    )
    """Shares of the requests that the new version gets, in percent, one after the other; then it gets all of them."""
    step_s: PositiveSeconds = Field(default=30.0, examples=[30, 600], json_schema_extra=costs(Cost.NONE))
    """Seconds that each step lasts at least."""
    min_requests: Annotated[int, Field(ge=0)] = Field(default=20, examples=[20], json_schema_extra=costs(Cost.NONE))
    """Answers that the new version must have given in a step before the next one."""
    max_latency_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = Field(
        default=1.5, examples=[1.5, None], json_schema_extra=costs(Cost.NONE)
    )
    """How many times the old version's p95 the new one's may be; null: latency is not judged."""
    sticky: Annotated[str, AfterValidator(check_cookie), pattern(COOKIE)] | None = Field(
        default=None, examples=[None, "side"], json_schema_extra=costs(Cost.NONE)
    )
    """Name of a cookie that keeps a client on its side; null: each request is drawn anew."""
