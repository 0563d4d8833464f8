"""What one import path names: can it be served with its arguments, what kind is it, what does it answer.

``inspect`` calls it in a throw-away process; what is imported here is warm before that process forks for each target.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serveconf.code.by_value import Bound
from serveconf.errors import AuthorError
from serveconf.ingress.app import call_factory, has_only_methods, kind_of, name_of, refuse_arguments
from serveconf.ingress.class_routes import is_ingress, routed_app
from serveconf.ingress.deployment import Application, Deployment, deployment_options
from serveconf.ingress.graph import Node, nodes_of
from serveconf.ingress.importing import import_target
from serveconf.ingress.kinds import shape_of
from serveconf.ingress.needs import home_of
from serveconf.ingress.operations import operations_of


def look_at_target(code_dir: Path | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Import it, see that it can be served with its arguments, and tell what it is and answers."""
    target = import_target(asked["import_path"], code_dir)
    options = deployment_options(target)
    init_args = asked.get("init_args") or options.get("init_args", [])
    init_kwargs = asked.get("init_kwargs") or options.get("init_kwargs", {})
    if isinstance(target, Bound):
        target, init_args, init_kwargs = target.target, list(target.args), dict(target.kwargs)
    is_deployment = isinstance(target, Deployment)
    if isinstance(target, Deployment):
        target = target.func_or_class
    if asked.get("factory"):
        target, init_args, init_kwargs = call_factory(target, init_args, init_kwargs), [], {}
        if isinstance(target, Deployment):
            is_deployment, spec = True, target.spec()
            target, init_args, init_kwargs = target.func_or_class, spec.init_args, spec.init_kwargs
    graph: list[dict[str, Any]] = []
    homes: dict[str, str] = {}
    if isinstance(target, Application):
        if init_args or init_kwargs:
            refuse_arguments(target)
        *inner, ingress = nodes_of(target)
        for node in inner:
            _look_at_node(node)
            homes[node.name] = home_of(node.deployment)
            graph.append({"name": node.name, "options": _options_of(node.deployment), "calls": list(node.calls)})
        options, is_deployment = _options_of(ingress.deployment), True
        homes[""] = home_of(ingress.deployment)
        target = ingress.deployment.func_or_class
        init_args, init_kwargs = ingress.arguments(lambda name: None)
    routed = asked.get("routed", True) and options.get("route_prefix", "") is not None
    shape = shape_of(target) if routed or not has_only_methods(target) else "class"
    if shape == "class":
        _check_arguments(target, init_args, init_kwargs)
    elif init_args or init_kwargs:
        refuse_arguments(target)
    return {
        "kind": "deployment" if is_deployment else kind_of(shape),
        "operations": operations_of(_unconstructed_app(target)),
        "options": options,
        "graph": graph,
        "homes": homes if graph else {},
    }


def _look_at_node(node: Node) -> None:
    target = node.deployment.func_or_class
    args, kwargs = node.arguments(lambda name: None)
    if isinstance(target, type):
        _check_arguments(target, args, kwargs)
    elif args or kwargs:
        refuse_arguments(target)


def _options_of(deployment: Deployment) -> dict[str, Any]:
    """Its options but for the arguments: those are bound."""
    bare = {key: value for key, value in deployment.given.items() if key not in ("init_args", "init_kwargs")}
    return deployment_options(dataclasses.replace(deployment, given=bare))


def _check_arguments(cls: Any, init_args: Sequence[Any], init_kwargs: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*init_args, **init_kwargs)
    except TypeError as exc:
        raise AuthorError(
            f"{name_of(cls)}{signature} cannot be constructed: {exc}", hint="see init_args and init_kwargs"
        ) from exc


def _unconstructed_app(target: Any) -> object:
    """The app whose routes can be told without constructing a class."""
    if not is_ingress(target):
        return target
    try:
        return routed_app(object.__new__(target))
    except TypeError:  # a class laid out in C that only its own constructor can make
        return None
