"""Responses among a call's arguments: the call waits for them, so that whoever made it need not."""

from __future__ import annotations

from typing import Any

from serveconf.handles.calls import Call
from serveconf.handles.response import DeploymentResponse


async def resolved(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with results in the place of responses. Raises what those raise."""
    args, kwargs = call.args, call.kwargs
    for value in (*args, *kwargs.values()):
        if isinstance(value, DeploymentResponse):
            args = tuple([await _result(value) for value in args])
            return args, {key: await _result(value) for key, value in kwargs.items()}
    return args, dict(kwargs)


async def _result(value: Any) -> Any:
    return await value if isinstance(value, DeploymentResponse) else value
