"""The part of the spec that says where spans go: ``tracing``, as a frozen pydantic model."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from serveconf.spec.checks import check_endpoint
from serveconf.spec.cost import Cost
from serveconf.spec.kinds import Strict, costs, pattern


class TracingSpec(Strict):
    """Spans of requests, for OpenTelemetry's tools. W3C trace headers are passed on with it and without."""

    endpoint: Annotated[str, AfterValidator(check_endpoint), pattern(r"^https?://[^\s/?#]+[^\s?#]*$")] = Field(
        examples=["http://127.0.0.1:4318"], json_schema_extra=costs(Cost.ROUTE)
    )
    """Collector that takes OTLP over HTTP (not gRPC), with or without the path /v1/traces."""
    sample: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=1.0, examples=[0.1, 1], json_schema_extra=costs(Cost.ROUTE)
    )
    """Share of the requests that are traced, of those whose client has not decided it (traceparent)."""
