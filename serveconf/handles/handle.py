"""``DeploymentHandle``: what code holds of a deployment that it calls. It can be kept, passed on and pickled."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from serveconf.handles.calls import Call, Caller, Options, Target
from serveconf.handles.response import DeploymentResponse, DeploymentResponseGenerator
from serveconf.handles.traced import calling
from serveconf.runtime import context
from serveconf.tracing import Span

T = TypeVar("T")

REQUEST_ID_HEADER = b"x-request-id"

_find_caller: Callable[[], Caller] | None = None


def install_caller(find: Callable[[], Caller] | None) -> None:
    """From now on handles of this process call through what ``find`` gives."""
    global _find_caller
    _find_caller = find


def install_default_caller(find: Callable[[], Caller]) -> None:
    """The same, where nobody was installed yet: user code in a replica imports the Python API too."""
    if _find_caller is None:
        install_caller(find)


class DeploymentHandle(Generic[T]):
    """``handle.remote(...)`` calls the deployment, ``handle.method.remote(...)`` a method of it.

    The call begins at once. Await what it gives in async code, ask for its ``.result()`` in sync code, or pass it on as
    an argument of another call, which then waits for it.
    """

    def __init__(
        self,
        target: Target,
        *,
        deployment_name: str = "",
        app_name: str = "",
        options: Options | None = None,
        caller: Caller | None = None,
    ) -> None:
        self.deployment_name = deployment_name or target.deployment
        self.app_name = app_name or target.stack
        self._target = target
        self._options = options or Options()
        self._caller = caller

    @property
    def is_initialized(self) -> bool:
        """Whether it can be called; always."""
        return True

    def options(
        self,
        *,
        method_name: str | None = None,
        stream: bool | None = None,
        multiplexed_model_id: str | None = None,
        session_id: str | None = None,
        use_new_handle_api: bool | None = None,
        _prefer_local_routing: bool | None = None,
    ) -> DeploymentHandle[T]:
        """A handle that calls another method, takes a stream of results, or says for which model or session it calls.

        What is left out stays as it is. The last two are Ray Serve's, and change nothing: that is how calls are made.
        """
        said = {
            "method_name": method_name,
            "stream": stream,
            "multiplexed_model_id": multiplexed_model_id,
            "session_id": session_id,
        }
        changed: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        for key, value in changed.items():
            wanted = bool if key == "stream" else str
            if not isinstance(value, wanted):
                raise TypeError(f"{key} must be a {wanted.__name__}, not {value!r}")
        return self._with(dataclasses.replace(self._options, **changed))

    def __getattr__(self, name: str) -> DeploymentHandle[Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._with(dataclasses.replace(self._options, method_name=name))

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it: a DeploymentResponse, or with ``options(stream=True)`` a DeploymentResponseGenerator."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, DeploymentResponseGenerator):
                raise RuntimeError(
                    "a stream of results cannot be passed to a call: iterate over it and pass the results"
                )
        caller = self._caller or _the_caller()
        request = context.request.get()
        call = Call(
            target=self._target,
            options=self._options,
            args=args,
            kwargs=kwargs,
            request_id=(request.header(REQUEST_ID_HEADER) if request is not None else "") or uuid.uuid4().hex,
            generation=request.generation if request is not None else 0,
            span=self._span(request.span) if request is not None and request.span is not None else None,
        )
        return (DeploymentResponseGenerator if self._options.stream else DeploymentResponse)(caller, call)

    def _span(self, parent: Span) -> Span:
        return calling(parent, f"{self._target.deployment}/{self._options.method_name}")

    def shutdown(self) -> None:
        """Nothing of a handle has to be ended."""

    def _with(self, options: Options) -> DeploymentHandle[Any]:
        return DeploymentHandle(
            self._target,
            deployment_name=self.deployment_name,
            app_name=self.app_name,
            options=options,
            caller=self._caller,
        )

    def __reduce__(self) -> Any:
        return _restore, (self._target, self.deployment_name, self.app_name, self._options)

    def __repr__(self) -> str:
        return f"DeploymentHandle(deployment={self.deployment_name!r}, app={self.app_name!r})"


def _restore(target: Target, deployment_name: str, app_name: str, options: Options) -> DeploymentHandle[Any]:
    return DeploymentHandle(target, deployment_name=deployment_name, app_name=app_name, options=options)


def _the_caller() -> Caller:
    if _find_caller is None:
        raise RuntimeError("handles can be called in a replica, or in a script that has imported serveconf.serve")
    return _find_caller()
