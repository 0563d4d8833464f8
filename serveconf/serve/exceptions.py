"""Ray Serve's module of this name: what calls by handle raise."""

from __future__ import annotations

from serveconf.handles.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    RequestCancelledError,
)

__all__ = ["BackPressureError", "DeploymentUnavailableError", "RayServeException", "RequestCancelledError"]
