"""One call as data, and the port through which it is made: over the wire in a cluster, in this process in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from serveconf.tracing import Span


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which deployment is called. ``deployment`` is its full name in the stack (``shop.Model``)."""

    stack: str
    deployment: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a handle calls."""

    method_name: str = "__call__"
    stream: bool = False
    multiplexed_model_id: str = ""
    session_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call."""

    target: Target
    options: Options
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    request_id: str
    generation: int = field(default=0)  # of the table to look in; 0: the current one
    span: Span | None = None  # of the call, where it is made within one; begun by whoever makes the call


class Caller(Protocol):
    """Makes calls. What it returns runs on ``loop``."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where the connections live."""

    def call(self, call: Call) -> Coroutine[Any, Any, Any]:
        """The result. Raises what the called code raises, or ``errors``."""

    def stream(self, call: Call, give: Callable[[Any], Awaitable[None]]) -> Coroutine[Any, Any, None]:
        """Hand on each result of a generator as it comes; ends with the last one."""
