"""The attributes of a request's span, by the names of OpenTelemetry's semantic conventions for HTTP (1.23 and later)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serveconf.figures import METHODS, OTHER

NO_METHOD = "HTTP"  # in a span's name, for a method that nobody knows


def method_of(scope: Mapping[str, Any]) -> str:
    """What a span's name begins with."""
    method: str = scope.get("method", "GET")
    return method if method in METHODS else NO_METHOD


def request_attributes(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Of an ASGI scope of either kind. The path without its query: that is where secrets are."""
    method = scope.get("method", "GET")
    raw_path = scope.get("raw_path") or scope["path"].encode()
    attributes: dict[str, Any] = {
        "http.request.method": method if method in METHODS else OTHER,
        "url.scheme": scope["scheme"],
        "url.path": raw_path.decode("ascii", "replace"),
        "network.protocol.version": scope["http_version"],
    }
    if method not in METHODS:
        attributes["http.request.method_original"] = method
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    for name, value in scope["headers"]:
        if name == b"host":
            attributes |= _host(value.decode("latin-1"))
        elif name == b"user-agent":
            attributes["user_agent.original"] = value.decode("latin-1")
    return attributes


def _host(said: str) -> dict[str, Any]:
    host, colon, port = said.rpartition(":")
    if colon and port.isdigit() and len(port) <= 5 and "]" not in port:
        return {"server.address": host, "server.port": int(port)}
    return {"server.address": said}
