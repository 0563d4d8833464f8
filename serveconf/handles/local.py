"""An application in this process, for tests of its logic: real objects and real handles, no Ray, no HTTP, no copies."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from serveconf.handles.calls import Call, Target
from serveconf.handles.handle import DeploymentHandle
from serveconf.handles.invoking import invoke, invoke_stream
from serveconf.handles.response import resolved
from serveconf.ingress.app import ServedApp, build
from serveconf.ingress.deployment import Application
from serveconf.ingress.graph import nodes_of
from serveconf.runtime import context


class LocalCaller:
    """Calls the objects of one application directly, on a loop in a thread of its own."""

    def __init__(
        self, served: Mapping[str, ServedApp], loop: asyncio.AbstractEventLoop, *, app_name: str, stack: str
    ) -> None:
        self.loop = loop
        self._served = served
        self._rooms: dict[str, context.Replica] = {}
        self._app_name = app_name
        self._stack = stack

    def room(self, deployment: str) -> context.Replica:
        """The only replica of a deployment, for code that asks who it is."""
        found = self._rooms.get(deployment)
        if found is None:
            who = context.ReplicaContext(
                app_name=self._app_name, deployment=deployment, replica_tag=f"{deployment}.local", stack=self._stack
            )
            found = self._rooms[deployment] = context.Replica(
                context=who, max_ongoing=sys.maxsize, ongoing=lambda: 0, name=deployment
            )
        if found.context.servable_object is None and deployment in self._served:
            found.context = replace(found.context, servable_object=self._served[deployment].servable)
        return found

    async def call(self, call: Call) -> Any:
        """The result."""
        args, kwargs = await resolved(call)
        self._enter(call)
        return await invoke(self._object(call), call.options.method_name, args, kwargs)

    async def stream(self, call: Call, give: Callable[[Any], Awaitable[None]]) -> None:
        """Hand on each result as it comes."""
        args, kwargs = await resolved(call)
        self._enter(call)
        items = invoke_stream(self._object(call), call.options.method_name, args, kwargs)
        try:
            async for item in items:
                await give(item)
        finally:
            await items.aclose()

    def _enter(self, call: Call) -> None:
        headers = [(context.MODEL_ID_HEADER, call.options.multiplexed_model_id.encode())]
        context.request.set(context.Request(headers))
        context.enter_room(self.room(call.target.deployment))

    def _object(self, call: Call) -> Any:
        return self._served[call.target.deployment].servable


def run_locally(app: Application, name: str) -> DeploymentHandle[Any]:
    """Construct every deployment of the application, and give a handle of its ingress. Raises what ``build`` raises."""
    served: dict[str, ServedApp] = {}
    _applications.append(served)
    caller = LocalCaller(served, _loop(), app_name=name, stack=name)

    def handle(node: str) -> DeploymentHandle[Any]:
        return DeploymentHandle(Target(stack=name, deployment=node), app_name=name, caller=caller)

    async def construct() -> None:
        for node in nodes_of(app):
            context.enter_room(caller.room(node.name))
            args, kwargs = node.arguments(handle)
            spec = node.deployment.spec()
            one = build(
                node.deployment.func_or_class,
                init_args=args,
                init_kwargs=kwargs,
                user_config=spec.user_config,
                routed=False,
            )
            await one.startup()
            served[node.name] = one

    asyncio.run_coroutine_threadsafe(construct(), caller.loop).result()
    return handle(nodes_of(app)[-1].name)


_lock = threading.Lock()
_running: asyncio.AbstractEventLoop | None = None
_applications: list[dict[str, ServedApp]] = []
_END_S = 5.0  # for what is left to end with the process


def _loop() -> asyncio.AbstractEventLoop:
    """One loop for all local applications of the process."""
    global _running
    with _lock:
        if _running is None:
            _running = asyncio.new_event_loop()
            threading.Thread(target=_running.run_forever, name="serveconf local", daemon=True).start()
            atexit.register(shut_down_locally)
        return _running


def shut_down_locally() -> None:
    """End every local application, the ingress first."""
    ending, _applications[:] = list(_applications), []

    async def end() -> None:
        for served in ending:
            for one in reversed(served.values()):
                await one.shutdown()

    if _running is not None and ending:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(end(), _running).result(_END_S)
