"""From a spec, and what preflight learned of its code, to the stack as it should be.

The controller calls ``make_desired`` for every plan and apply. Equal input gives equal output, whatever the order of
deployments in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from serveconf.code.versions import base_of, version_of
from serveconf.plan.costs import canonical, field_costs, roll_fields, same
from serveconf.plan.moving import moves_of, with_names
from serveconf.plan.processes import with_processes
from serveconf.plan.scaling import rule_of
from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.routing import Middleware
from serveconf.spec.models import DeploymentSpec, HttpOptions, MiddlewareSpec, StackSpec

Files = Mapping[str, str]  # path -> content hash
# Unsaid they make the version that there was before there were such keys
LATER = ("max_replicas_per_node", "placement_group_bundles", "placement_group_strategy")
LATER_FOR_RAY = ("fallback_strategy",)


def make_desired(
    spec: StackSpec,
    *,
    revision: int,
    code: str,
    files_for: Callable[[str], Files],
    middleware_files_for: Callable[[str | None], Files] | None = None,
    policy_files_for: Callable[[str], Files] | None = None,
    masks: Mapping[str, str] | None = None,
    app_dir: str | None = None,
    operations: Mapping[str, Sequence[str]] | None = None,
    current: DesiredStack | None = None,
) -> DesiredStack:
    """The stack that ``spec`` asks for.

    ``files_for``: the files that make a deployment what it is (``code.relevant_files``), by its name;
    ``middleware_files_for``: the same for its middlewares, and for those of http_options under None; where it is not
    given nobody knows, and every new code package makes new middlewares. ``policy_files_for``: for its scaling policy.
    ``masks``: paths in the spec, such as ``deployments[0].init_kwargs.password``, and what to show for their values.
    ``current``: what the stack is now. What is the same there keeps the code package it came from, so that a change of
    one deployment's code leaves the others, and the middlewares that did not change, exactly as they are. A number of
    replicas that follows the load, or was set by hand, stays what it is, within its bounds.
    """
    masks = masks or {}
    look = middleware_files_for or (lambda _deployment: {})
    said_app_dir = _said_app_dir(spec.app_dir, app_dir, current)
    deployments = []
    for index, deployment in enumerate(spec.deployments):
        one = _make_deployment(
            deployment,
            code=code,
            said_app_dir=said_app_dir,
            app_dir=app_dir,
            files=files_for(deployment.name),
            middleware_files=look(deployment.name),
            policy_files=policy_files_for(deployment.name) if policy_files_for is not None else {},
            masks=_below(masks, f"deployments[{index}]."),
            operations=(operations or {}).get(deployment.name, ()),
        )
        deployments.append(one)
    made = DesiredStack(
        name=spec.name,
        revision=revision,
        http_options=_said(spec.http_options),
        http_middlewares=_middlewares(spec.http_options.middlewares, code),
        http_middleware_modules=dict(look(None)),
        masks=_below(masks, "http_options."),
        deployments=tuple(sorted(deployments, key=lambda d: d.name)),
        code=code,
        said_app_dir=said_app_dir,
        standbys=spec.standbys,
    )
    made = with_processes(made)
    return made if current is None else _keep(made, current, middlewares=middleware_files_for is not None)


def _said_app_dir(said: str, app_dir: str | None, current: DesiredStack | None) -> str:
    """How app_dir is named. A full path to the folder that serves already is no other name for it: ``dump`` writes such."""
    if current is not None and said.startswith("/") and any(d.app_dir == app_dir for d in current.deployments):
        return current.said_app_dir
    return said


def config_hash(user_config: Any) -> str:
    """A short hash of a user_config."""
    return hashlib.sha256(canonical(user_config)).hexdigest()[:12]


def _make_deployment(
    spec: DeploymentSpec,
    *,
    code: str,
    said_app_dir: str,
    app_dir: str | None,
    files: Files,
    middleware_files: Files,
    policy_files: Files,
    masks: dict[str, str],
    operations: Sequence[str],
) -> DesiredDeployment:
    filled = _filled(spec)
    # A max_ongoing_requests that follows from the target is told to live replicas: it makes no other version.
    different = roll_fields(spec.model_dump(mode="json"), field_costs(DeploymentSpec))
    _leave_out_unsaid(different, LATER)
    _leave_out_unsaid(different["ray_actor_options"], LATER_FOR_RAY)
    del different["name"]  # another name is another deployment, never another version
    version = version_of(different | {"app_dir": said_app_dir}, files)
    return DesiredDeployment(
        name=spec.name,
        prefix=spec.prefix,
        num_replicas=_replicas(spec),
        version=version,
        own_version=version,
        code=code,
        app_dir=app_dir,
        modules=dict(files),
        spec=filled,
        config_hash=config_hash(filled["user_config"]),
        middlewares=_middlewares(spec.middlewares, code),
        middleware_modules=dict(middleware_files),
        policy=_policy(spec, code),
        policy_modules=dict(policy_files),
        masks=masks,
        operations=tuple(sorted(set(operations))),
    )


def _leave_out_unsaid(fields: dict[str, Any], later: Sequence[str]) -> None:
    for key in later:
        if fields[key] in (None, []):
            del fields[key]


def _filled(spec: DeploymentSpec) -> dict[str, Any]:
    """The spec with every default filled in, those too that depend on another field."""
    scaling = spec.scaling
    return spec.model_dump(mode="json") | {
        "route_prefix": spec.prefix,
        "max_ongoing_requests": spec.ongoing_limit,
        "autoscaling_config": scaling.model_dump(mode="json") if scaling else None,
    }


def _replicas(spec: DeploymentSpec) -> int:
    """How many replicas to begin with; where the number follows the load at least one, so that the code has run once."""
    if (scaling := spec.scaling) is not None:
        return max(scaling.min_replicas, 1) if scaling.initial_replicas is None else scaling.initial_replicas
    assert isinstance(spec.num_replicas, int)  # auto has a scaling
    return spec.num_replicas


def _middlewares(specs: Sequence[MiddlewareSpec], code: str) -> tuple[Middleware, ...]:
    return tuple(
        Middleware(import_path=m.import_path, args=tuple(m.args), kwargs=m.kwargs, code=code or None) for m in specs
    )


def _policy(spec: DeploymentSpec, code: str) -> Middleware | None:
    path = spec.scaling.policy if spec.scaling is not None else None
    return Middleware(import_path=path, args=(), kwargs={}, code=code or None) if path is not None else None


def _said(options: HttpOptions) -> dict[str, Any]:
    """The keys that the file sets, each value in full."""
    return options.model_dump(mode="json", include=options.model_fields_set)


def _below(masks: Mapping[str, str], start: str) -> dict[str, str]:
    return {path.removeprefix(start): mask for path, mask in masks.items() if path.startswith(start)}


def _keep(made: DesiredStack, current: DesiredStack, *, middlewares: bool) -> DesiredStack:
    known = {deployment.name: deployment for deployment in current.deployments}
    deployments = []
    for deployment in made.deployments:
        before = known.get(deployment.name)
        if before is not None and base_of(before.version) == base_of(deployment.version):
            deployment = replace(deployment, code=before.code, version=before.version)
        if before is not None and middlewares and same_middlewares(deployment, before):
            deployment = replace(deployment, middlewares=before.middlewares)
        if before is not None and deployment.policy is not None and same_policy(deployment, before):
            deployment = replace(deployment, policy=before.policy)
        if before is not None:
            deployment = replace(deployment, num_replicas=_kept_number(deployment, before))
        deployments.append(deployment)
    if middlewares and same_http_middlewares(made, current):
        made = replace(made, http_middlewares=current.http_middlewares)
    return replace(made, deployments=tuple(deployments))


def as_running(made: DesiredStack, current: DesiredStack | None) -> DesiredStack:
    """The stack with the editions that its unchanged deployments have by now: an upgrade is nothing to go back from."""
    served = with_names(current, moves_of(current, made))
    versions = {d.name: d.version for d in served.deployments} if served is not None else {}
    return replace(
        made,
        deployments=tuple(
            replace(d, version=versions[d.name]) if base_of(versions.get(d.name, "")) == base_of(d.version) else d
            for d in made.deployments
        ),
    )


def _kept_number(made: DesiredDeployment, before: DesiredDeployment) -> int:
    rule = rule_of(made.spec)
    if rule is not None:
        return made.num_replicas if rule.dry_run else rule.widest.clamp(before.num_replicas)
    fixed = rule_of(before.spec) is None and same(before.spec.get("num_replicas"), made.spec["num_replicas"])
    return before.num_replicas if fixed else made.num_replicas  # the file says what it said: it was set by hand


def same_middlewares(one: DesiredDeployment, other: DesiredDeployment) -> bool:
    """Whether two deployments have the same middlewares, built from the same code, whatever package it came in."""
    return one.middleware_modules == other.middleware_modules and _same_words(one.middlewares, other.middlewares)


def same_policy(one: DesiredDeployment, other: DesiredDeployment) -> bool:
    """Whether what decides on their numbers is the same function, from the same code."""
    paths = [d.policy.import_path if d.policy is not None else None for d in (one, other)]
    return paths[0] == paths[1] and one.policy_modules == other.policy_modules


def same_http_middlewares(one: DesiredStack, other: DesiredStack) -> bool:
    """``same_middlewares``, for those of http_options."""
    same_code = one.http_middleware_modules == other.http_middleware_modules
    return same_code and _same_words(one.http_middlewares, other.http_middlewares)


def _same_words(one: Sequence[Middleware], other: Sequence[Middleware]) -> bool:
    return same([replace(m, code=None) for m in one], [replace(m, code=None) for m in other])
