"""The deployments of bound applications, as entries of the spec beside the one that names the application. Pure.

``prepare`` calls it with what the preflight has found: each other deployment of an application becomes ``ENTRY.NAME``,
without a route, with its own options under the file's ``overrides``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError

from serveconf.errors import AuthorError
from serveconf.spec.models import DeploymentSpec, StackSpec
from serveconf.spec.problems import join

_ENTRY_S = ("import_path", "factory", "init_args", "init_kwargs")  # what finds the application
_NOT_THEIRS = (*_ENTRY_S, "name", "route_prefix", "middlewares", "match", "mirror", "overrides")

Graphs = Mapping[str, Sequence[Mapping[str, Any]]]  # entry -> its other deployments: name, options, calls


@dataclass(frozen=True, kw_only=True)
class Inner:
    """One of the other deployments: its entry, and its name in the application."""

    entry: str
    bound: str


def expand(
    spec: StackSpec, graphs: Graphs, masks: Mapping[str, str]
) -> tuple[StackSpec, dict[str, Inner], dict[str, str]]:
    """The spec with every deployment of its applications, those that were added, and the masks of all.

    Raises AuthorError for overrides of what is not there, or of what only the entry can say.
    """
    deployments, inner, all_masks = list(spec.deployments), {}, dict(masks)
    names = {deployment.name for deployment in deployments}
    for index, entry in enumerate(spec.deployments):
        nodes = graphs.get(entry.name, ())
        _check_overrides(entry, [str(node["name"]) for node in nodes])
        for node in nodes:
            name = f"{entry.name}.{node['name']}"
            if name in names:
                raise AuthorError(
                    f"deployment {name} is a part of the application {entry.name}: give the other one another name"
                )
            start = f"deployments[{index}]."
            own = join(f"{start}overrides", node["name"]) + "."
            there = f"deployments[{len(deployments)}]."
            for path, mask in masks.items():
                if path.startswith((f"{start}init_", f"{start}ray_actor_options.runtime_env")):
                    all_masks[there + path.removeprefix(start)] = mask
                elif path.startswith(own):
                    all_masks[there + path.removeprefix(own)] = mask
            deployments.append(_inner_spec(entry, name, node))
            inner[name] = Inner(entry=entry.name, bound=str(node["name"]))
        deployments[index] = entry.model_copy(update={"overrides": {}}) if entry.overrides else entry
    return spec.model_copy(update={"deployments": deployments}), inner, all_masks


def _check_overrides(entry: DeploymentSpec, names: Sequence[str]) -> None:
    for name, options in entry.overrides.items():
        if name not in names:
            there = f"there are: {', '.join(names)}" if names else f"{entry.import_path} is no application of several"
            raise AuthorError(f"deployments.{entry.name}.overrides: there is no deployment '{name}'", hint=there)
        for key in options:
            if key in _NOT_THEIRS:
                raise AuthorError(f"deployments.{entry.name}.overrides.{name}: {key} cannot be said for it")


def _inner_spec(entry: DeploymentSpec, name: str, node: Mapping[str, Any]) -> DeploymentSpec:
    said = entry.model_dump(mode="json", include=set(_ENTRY_S))
    options = {key: value for key, value in node["options"].items() if key not in _NOT_THEIRS}
    data = {**options, **entry.overrides.get(str(node["name"]), {}), **said, "name": name, "route_prefix": None}
    environment = _environment(entry, data.get("ray_actor_options") or {})
    if environment:
        data["ray_actor_options"] = {**(data.get("ray_actor_options") or {}), "runtime_env": environment}
    try:
        return DeploymentSpec.model_validate_json(msgspec.json.encode(data))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise AuthorError(f"deployment {name}: {wrong}") from error


def _environment(entry: DeploymentSpec, own: Mapping[str, Any]) -> dict[str, Any]:
    """The entry's runtime environment, under the deployment's own: all of an application is imported from one place."""
    outer, inner = entry.ray_actor_options.runtime_env, own.get("runtime_env") or {}
    env_vars = {**(outer.get("env_vars") or {}), **(inner.get("env_vars") or {})}
    return {**outer, **inner, **({"env_vars": env_vars} if env_vars else {})}
