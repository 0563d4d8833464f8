"""Responses among a call's arguments: the call waits for them, so that whoever made it need not."""

from __future__ import annotations

from typing import Any

from serveconf.handles.calls import Call
from serveconf.handles.response import DeploymentResponse


async def resolved(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with results in the place of responses. Raises what those raise."""
    args, kwargs = call.args, dict(call.kwargs)
    if any(isinstance(value, DeploymentResponse) for value in (*args, *kwargs.values())):
        args = tuple([await _result(value) for value in args])
        kwargs = {key: await _result(value) for key, value in kwargs.items()}
    return args, kwargs


async def _result(value: Any) -> Any:
    return await value if isinstance(value, DeploymentResponse) else value
