"""Ray Serve's module of this name: the types of handles, for annotations."""

from __future__ import annotations

from serveconf.handles.handle import DeploymentHandle
from serveconf.handles.response import DeploymentResponse, DeploymentResponseGenerator

__all__ = ["DeploymentHandle", "DeploymentResponse", "DeploymentResponseGenerator"]
