"""The part of the spec that says how HTTP is served, of the whole cluster and around an app, as frozen pydantic models."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from serveconf.spec.checks import check_endpoint
from serveconf.spec.cost import Cost
from serveconf.spec.kinds import (
    FieldName,
    Host,
    ImportPath,
    PositiveSeconds,
    RootPath,
    Strict,
    costs,
    pattern,
)


class Location(StrEnum):
    """On which nodes an HTTP proxy runs."""

    HEAD_ONLY = "HeadOnly"
    EVERY_NODE = "EveryNode"
    NO_SERVER = "NoServer"


class AccessLog(StrEnum):
    """How a request's line in the access log is written."""

    JSON = "json"
    COMBINED = "combined"


def _location(value: Any) -> Any:
    """YAML has strings and null where Python has the enum; null means NoServer."""
    if value is None:
        return Location.NO_SERVER
    if isinstance(value, str):
        if value not in {kind.value for kind in Location}:
            raise PydanticCustomError("choice", "must be HeadOnly, EveryNode, NoServer or null")
        return Location(value)
    return value


def _access_log(value: Any) -> Any:
    if isinstance(value, str):
        if value not in {kind.value for kind in AccessLog}:
            raise PydanticCustomError("choice", "must be json, combined or null")
        return AccessLog(value)
    return value


class MiddlewareSpec(Strict):
    """One Starlette-style middleware: a class or factory, called with the next ASGI app, then args and kwargs."""

    import_path: ImportPath = Field(
        examples=["starlette.middleware.cors:CORSMiddleware"], json_schema_extra=costs(Cost.ROUTE)
    )
    """Where the middleware is: module:attribute."""
    args: list[Any] = Field(default=[], examples=[["a value"]], json_schema_extra=costs(Cost.ROUTE))
    """Positional arguments after the app."""
    kwargs: dict[str, Any] = Field(default={}, examples=[{"allow_origins": ["*"]}], json_schema_extra=costs(Cost.ROUTE))
    """Keyword arguments."""


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


class HttpOptions(Strict):
    """The HTTP front of the cluster. Stacks that share a cluster must not contradict each other here."""

    location: Annotated[Location, BeforeValidator(_location, json_schema_input_type=Location | None)] = Field(
        default=Location.HEAD_ONLY,
        examples=["HeadOnly", "EveryNode", "NoServer", None],
        json_schema_extra=costs(Cost.PROXY),
    )
    """Where proxies run: HeadOnly (one, on the head node), EveryNode, or NoServer (null means NoServer)."""
    host: Host = Field(default="127.0.0.1", examples=["127.0.0.1", "0.0.0.0"], json_schema_extra=costs(Cost.PROXY))
    """Address that the proxies listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8000, examples=[8000], json_schema_extra=costs(Cost.PROXY)
    )
    """TCP port that the proxies listen on."""
    root_path: RootPath = Field(default="", examples=["", "/api"], json_schema_extra=costs(Cost.ROUTE))
    """ASGI mount point, for an outer proxy that strips a prefix before it forwards."""
    workers: Annotated[int, Field(ge=1, le=64)] = Field(default=1, examples=[1, 4], json_schema_extra=costs(Cost.PROXY))
    """Proxy processes per node, sharing the port."""
    request_timeout_s: PositiveSeconds | None = Field(
        default=None, examples=[None, 30], json_schema_extra=costs(Cost.ROUTE)
    )
    """Seconds after which an unanswered request gets a 504; null means no limit."""
    keep_alive_timeout_s: PositiveSeconds = Field(default=90.0, examples=[90], json_schema_extra=costs(Cost.ROUTE))
    """Seconds an idle client connection is kept open."""
    body_timeout_s: PositiveSeconds = Field(default=60.0, examples=[60], json_schema_extra=costs(Cost.ROUTE))
    """Seconds in which a client must send more of its body, else 408; likewise until a WebSocket is accepted."""
    send_timeout_s: PositiveSeconds = Field(default=60.0, examples=[60], json_schema_extra=costs(Cost.ROUTE))
    """Seconds in which a client must take more of what it is sent, else its connection is cut."""
    max_request_body_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None, examples=[None, 10485760], json_schema_extra=costs(Cost.ROUTE)
    )
    """Largest request body in bytes; past it 413; null means no limit."""
    max_request_target_bytes: Annotated[int, Field(ge=256, le=262_144)] = Field(
        default=65_536, examples=[65536], json_schema_extra=costs(Cost.ROUTE)
    )
    """Longest path with query, in bytes; past it 414. Of HTTP/1.1, HTTP/2 and WebSocket handshakes alike."""
    max_request_field_bytes: Annotated[int, Field(ge=256, le=262_144)] = Field(
        default=65_536, examples=[65536], json_schema_extra=costs(Cost.ROUTE)
    )
    """Longest header field (name and value), in bytes; past it 431."""
    max_request_fields: Annotated[int, Field(ge=16, le=5_000)] = Field(
        default=1_000, examples=[1000], json_schema_extra=costs(Cost.ROUTE)
    )
    """Most header fields of a request; past it 431."""
    max_request_head_bytes: Annotated[int, Field(ge=1_024, le=524_288)] = Field(
        default=131_072, examples=[131072], json_schema_extra=costs(Cost.ROUTE)
    )
    """Largest head of a request, target and all header fields together, in bytes; past it 431."""
    request_id_header: FieldName | None = Field(
        default="x-request-id", examples=["x-request-id", "x-correlation-id", None], json_schema_extra=costs(Cost.ROUTE)
    )
    """Header with a request's id: taken over or made, handed to the app, echoed. null: none is made, taken or added."""
    forwarded_allow_ips: str = Field(
        default="127.0.0.1,::1", examples=["127.0.0.1,::1", "10.0.0.0/8", "*"], json_schema_extra=costs(Cost.ROUTE)
    )
    """Peers whose X-Forwarded-* headers are believed: addresses and networks with commas between, or * for everyone."""
    ssl_certfile: str | None = Field(default=None, examples=[None, "tls/cert.pem"], json_schema_extra=costs(Cost.PROXY))
    """PEM file of the certificate, for HTTPS (TLS 1.2 or newer); relative to the file. A renewed one is picked up live."""
    ssl_keyfile: str | None = Field(default=None, examples=[None, "tls/key.pem"], json_schema_extra=costs(Cost.PROXY))
    """PEM file of the certificate's private key; relative to the file."""
    ssl_keyfile_password: str | None = Field(
        default=None, examples=[None, "${KEY_PASSWORD}"], json_schema_extra=costs(Cost.PROXY)
    )
    """What the private key is encrypted with; write a variable, so that no plan and no history shows it."""
    ssl_ca_certs: str | None = Field(
        default=None, examples=[None, "tls/clients.pem"], json_schema_extra=costs(Cost.PROXY)
    )
    """PEM file of authorities; with it every client must show a certificate that one of them has signed."""
    http2: bool = Field(default=False, examples=[False, True], json_schema_extra=costs(Cost.PROXY))
    """Offer HTTP/2 too, over TLS; needs the extra: pip install 'serveconf[http2]'."""
    access_log: Annotated[AccessLog | None, BeforeValidator(_access_log, json_schema_input_type=AccessLog | None)] = (
        Field(default=None, examples=[None, "json", "combined"], json_schema_extra=costs(Cost.ROUTE))
    )
    """A line for each request in the proxies' logs, as JSON or in the combined format; null means none."""
    tracing: TracingSpec | None = Field(
        default=None,
        examples=[None, {"endpoint": "http://127.0.0.1:4318", "sample": 0.1}],
        json_schema_extra=costs(Cost.ROUTE),
    )
    """Sends spans of requests to a collector; needs the extra: pip install 'serveconf[otel]'. null: none are made."""
    middlewares: list[MiddlewareSpec] = Field(
        default=[],
        examples=[[{"import_path": "starlette.middleware.gzip:GZipMiddleware"}]],
        json_schema_extra=costs(Cost.ROUTE),
    )
    """Starlette middlewares around every request, 404s and system endpoints included; the first is the outermost."""
