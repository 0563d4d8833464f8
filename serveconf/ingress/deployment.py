"""``@serve.deployment``: a class or function together with its options, which are the defaults under the YAML's.

A ``Deployment`` does nothing by itself. ``deploy`` and ``delete`` go to whoever called ``install_deployer``, which is the
Python API; it is imported on first use.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, TypedDict, Unpack, overload

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from starlette.middleware import Middleware

from serveconf.errors import AuthorError
from serveconf.spec.models import DeploymentSpec

_PLACEHOLDER = "module:attribute"  # a Deployment does not know its import path; its spec cannot be without one


class DeploymentOptions(TypedDict, total=False):
    """What a deployment may be given in Python: the keys of a deployment in YAML, but for where it is imported from."""

    name: str
    route_prefix: str | None
    num_replicas: int
    init_args: list[Any] | tuple[Any, ...]
    init_kwargs: dict[str, Any]
    user_config: Any
    middlewares: Sequence[Middleware | dict[str, Any]]
    max_ongoing_requests: int
    max_queued_requests: int
    request_timeout_s: float | None
    health_check_path: str | None
    health_check_period_s: float
    health_check_timeout_s: float
    event_loop_timeout_s: float | None
    graceful_shutdown_timeout_s: float
    autoscaling_config: dict[str, Any] | None
    logging: dict[str, Any]
    ray_actor_options: dict[str, Any]
    max_replicas_per_node: int | None
    placement_group_bundles: list[dict[str, float]] | None
    placement_group_strategy: str | None
    rollout: dict[str, Any]
    match: dict[str, Any] | None
    session_affinity: dict[str, Any] | None
    process: str | None
    mirror: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Deployment:
    """A class, function or ASGI app that can be deployed, and the options that were given for it."""

    func_or_class: Any
    name: str
    given: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def options(self, **options: Unpack[DeploymentOptions]) -> Deployment:
        """The same with some options changed; this one stays as it is."""
        given = {**self.given, **_checked(dict(options))}
        name = options.get("name", self.name)
        _validated(name, given)
        return replace(self, name=name, given=MappingProxyType(given))

    @property
    def route_prefix(self) -> str | None:
        """Where it is mounted; None: not reachable over HTTP."""
        return self.spec().prefix

    def spec(self, import_path: str = _PLACEHOLDER) -> DeploymentSpec:
        """The options as the spec knows them, for code that is found at ``import_path``."""
        return _validated(self.name, self.given, import_path)

    def bind(self, *args: Any, **kwargs: Any) -> Application:
        """An application: this deployment constructed with these arguments. Applications among them arrive as handles."""
        return Application(deployment=self, args=args, kwargs=kwargs)

    def deploy(self, *init_args: Any, **init_kwargs: Any) -> None:
        """Make it run, or change what runs under its name. Arguments given here replace init_args and init_kwargs."""
        changed: DeploymentOptions = {}
        if init_args:
            changed["init_args"] = init_args
        if init_kwargs:
            changed["init_kwargs"] = init_kwargs
        _the_deployer().deploy(self.options(**changed) if changed else self)

    def delete(self) -> None:
        """Take it away, draining."""
        _the_deployer().delete(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.func_or_class, self.name, dict(self.given))


@dataclass(frozen=True, kw_only=True, eq=False)
class Application:
    """A deployment bound to its arguments, and by them to the deployments that it calls. ``graph`` takes it apart."""

    deployment: Deployment
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Deployer(Protocol):
    """Who makes deployments run."""

    def deploy(self, deployment: Deployment) -> None: ...

    def delete(self, deployment: Deployment) -> None: ...


@overload
def deployment(func_or_class: Callable[..., Any], /) -> Deployment: ...


@overload
def deployment(**options: Unpack[DeploymentOptions]) -> Callable[[Callable[..., Any]], Deployment]: ...


def deployment(
    func_or_class: Callable[..., Any] | None = None, /, **options: Unpack[DeploymentOptions]
) -> Deployment | Callable[[Callable[..., Any]], Deployment]:
    """Decorator, bare or with options. Raises TypeError for an unknown option, ``AuthorError`` for a wrong value."""
    given = _checked(dict(options))

    def decorate(target: Callable[..., Any]) -> Deployment:
        if isinstance(target, Deployment):
            raise TypeError(f"{target.name} is a deployment already; use .options(...) to change it")
        name = given.get("name", getattr(target, "__name__", None))
        if name is None:
            raise TypeError(f"an object of type {type(target).__qualname__} has no name of its own: give name=...")
        _validated(name, given)
        return Deployment(func_or_class=target, name=name, given=MappingProxyType(given))

    return decorate if func_or_class is None else decorate(func_or_class)


def deployment_options(target: object) -> dict[str, Any]:
    """The options of a Deployment as the JSON data of a spec, without its name; empty for anything else."""
    if not isinstance(target, Deployment):
        return {}
    try:
        options = target.spec().model_dump(mode="json", exclude_unset=True, exclude={"name", "import_path"})
    except PydanticSerializationError as exc:
        raise AuthorError(
            f"deployment {target.name}: its options cannot be written as JSON: {exc}",
            hint="only .deploy() takes Python objects as init_args; by import path they must be plain data",
        ) from exc
    return options


def install_deployer(deployer: Deployer) -> None:
    """From now on ``deploy`` and ``delete`` of every Deployment go to ``deployer``."""
    global _deployer
    _deployer = deployer


_deployer: Deployer | None = None


def _the_deployer() -> Deployer:
    if _deployer is None:
        importlib.import_module("serveconf.serve")  # installs itself; by name, because it stands on a floor above
    if _deployer is None:
        raise RuntimeError("no deployer was installed")
    return _deployer


def _restore(func_or_class: Any, name: str, given: dict[str, Any]) -> Deployment:
    return Deployment(func_or_class=func_or_class, name=name, given=MappingProxyType(given))


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    known = DeploymentOptions.__annotations__
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise TypeError(f"unknown option {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if isinstance(options.get("init_args"), tuple):
        options["init_args"] = list(options["init_args"])
    return options


def _validated(name: str, given: Mapping[str, Any], import_path: str = _PLACEHOLDER) -> DeploymentSpec:
    if isinstance(given.get("middlewares"), list | tuple):
        given = {**given, "middlewares": [_middleware_spec(m) for m in given["middlewares"]]}
    try:
        return DeploymentSpec.model_validate({**given, "name": name, "import_path": import_path})
    except ValidationError as exc:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in exc.errors())
        raise AuthorError(f"deployment {name}: " + "; ".join(problems)) from exc


def _middleware_spec(middleware: object) -> object:
    """A Middleware object by its import path. What has none is only told by ``.deploy()``, which can send it by value."""
    if not isinstance(middleware, Middleware):
        return middleware
    cls: Any = middleware.cls
    importable = "<" not in getattr(cls, "__qualname__", "<")
    return {
        "import_path": f"{cls.__module__}:{cls.__qualname__}" if importable else _PLACEHOLDER,
        "args": list(middleware.args),
        "kwargs": middleware.kwargs,
    }
