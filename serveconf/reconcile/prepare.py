"""From a request to a ``DesiredStack``: the code is looked at in a throw-away process before anything is touched.

What was looked at for the revision that serves, and has not changed since, is not looked at again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace
from pydantic import ValidationError

from serveconf.code.snapshot import Snapshot
from serveconf.code.versions import relevant_files
from serveconf.errors import AuthorError
from serveconf.plan.desired import make_desired
from serveconf.plan.graph import expand
from serveconf.plan.hiding import Secrets, hide, secrets_of
from serveconf.plan.moving import entry_moves, former_names, with_former_names, with_names
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.ports import Preflight, Question, TargetReport
from serveconf.reconcile.requests import ApplyRequest
from serveconf.routing import Middleware
from serveconf.spec.groups import group_conflicts
from serveconf.spec.models import DeploymentSpec, MiddlewareSpec, StackSpec
from serveconf.tracing import MISSING, MISSING_HINT, is_installed

LOOKED_AT = ("import_path", "factory", "init_args", "init_kwargs")  # what decides which modules get imported


class CodeProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Code that can't be served, by the path of the key that names it."""

    path: str
    message: str
    deployment: str | None = None
    traceback: str = ""
    hint: str | None = None


class CodeRefused(AuthorError):
    """Some of the code can't be imported or is nothing that can be served."""

    code = "code_failed"

    def __init__(self, problems: list[CodeProblem]) -> None:
        super().__init__("; ".join(p.message for p in problems))
        self.problems = problems


async def prepare(
    request: ApplyRequest, *, revision: int, current: DesiredStack | None, preflight: Preflight
) -> DesiredStack:
    """The stack that the request asks for. Raises CodeRefused with every problem that its code has."""
    try:
        spec = StackSpec.model_validate_json(msgspec.json.encode(request.spec))
    except ValidationError as error:  # the commands have checked it; others may not
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise AuthorError(f"the spec is not valid: {wrong}", code="invalid_spec") from error
    if spec.http_options.tracing is not None and not is_installed():
        raise CodeRefused([CodeProblem(path="http_options.tracing", message=MISSING, hint=MISSING_HINT)])
    former = former_names(spec.moved, {d.name for d in spec.deployments})
    current = with_names(current, entry_moves(current, former))  # what goes on under another name is known already
    looked = await _look(request, spec, current, preflight)
    snapshot = Snapshot(digest=request.code, files=request.files, total_bytes=0)
    graphs = {name: report.graph for name, report in looked.targets.items()}
    expanded, inner, masks = expand(_with_options(spec, looked.targets), graphs, request.masks)
    for name, one in inner.items():
        looked.targets[name] = _of_bound(looked.targets[one.entry], one.bound)
    desired = make_desired(
        expanded,
        revision=revision,
        code=request.code,
        files_for=lambda name: relevant_files(snapshot, looked.targets[name].modules),
        middleware_files_for=lambda owner: {
            path: request.files[path] for path in looked.middleware_modules.get(owner, ()) if path in request.files
        },
        policy_files_for=lambda name: {
            path: request.files[path] for path in looked.policy_modules.get(name, ()) if path in request.files
        },
        masks=masks,
        app_dir=request.app_dir,
        operations={name: report.operations for name, report in looked.targets.items()},
        current=current,
    )
    among = _python_paths(request.files)
    deployments = (
        replace(
            d,
            options=looked.targets[d.name].options,
            graph=looked.targets[d.name].graph,
            installed=looked.targets[d.name].installed,
            looked_among=among,
            bound=inner[d.name].bound if d.name in inner else "",
        )
        for d in desired.deployments
    )
    return with_former_names(replace(desired, deployments=tuple(deployments)), former)


@dataclass
class _Looked:
    """What is known of the code: each deployment's target, and the modules of its middlewares (None: the front's) and policy."""

    targets: dict[str, TargetReport]
    middleware_modules: dict[str | None, set[str]]
    policy_modules: dict[str, set[str]]

    def add(self, one: _Addition, modules: Iterable[str]) -> None:
        """What an addition imports."""
        known: dict[Any, set[str]] = self.policy_modules if one.is_policy else self.middleware_modules
        known.setdefault(one.owner, set()).update(modules)


@dataclass(frozen=True)
class _Addition:
    """What is imported besides the targets: a middleware, of a deployment or of the front (None), or a scaling policy."""

    path: str  # of the key that names it
    owner: str | None
    asked: dict[str, Any]
    is_policy: bool = False


async def _look(request: ApplyRequest, spec: StackSpec, current: DesiredStack | None, preflight: Preflight) -> _Looked:
    """Look at everything that is not known yet. Raises CodeRefused with all that is wrong."""
    known = {d.name: report for d in spec.deployments if (report := _known(request, d, current)) is not None}
    looked = _Looked(
        targets=known,
        middleware_modules=_known_middlewares(request, spec, current),
        policy_modules=_known_policies(request, spec, current),
    )
    asked = [*_unknown_middlewares(spec, looked), *_unknown_policies(spec, looked)]
    unknown = [d for d in spec.deployments if d.name not in known]
    problems: list[CodeProblem] = []
    secrets = {
        text: m for key, value in request.spec.items() for text, m in secrets_of(value, key, request.masks).items()
    }
    for runtime_env, group in _by_runtime_env(unknown, also_empty=bool(asked)):
        mine = [] if runtime_env else asked
        question = Question(
            code=request.code,
            app_dir=request.app_dir,
            targets=[_target(d) for d in group],
            middlewares=[one.asked for one in mine],
            runtime_env=dict(runtime_env),
            timeout_s=max([60.0, *(d.rollout.ready_timeout_s for d in group)]),
        )
        reports, checks = await preflight.inspect(question)
        for d, report in zip(group, reports, strict=True):
            known[d.name] = report
            if not report.ok:
                problems.append(
                    _problem(f"deployments[{spec.deployments.index(d)}].import_path", report, d.name, secrets)
                )
        for one, check in zip(mine, checks, strict=True):
            looked.add(one, check.modules)
            if not check.ok:
                problems.append(_problem(one.path, check, one.owner, secrets))
    if problems:
        raise CodeRefused(problems)
    return looked


def _known(request: ApplyRequest, spec: DeploymentSpec, current: DesiredStack | None) -> TargetReport | None:
    """What is known of a deployment from the revision that serves, if nothing that matters has changed since.

    A file that is new may be one that it would import now, in the place of another or after all: then nothing is known.
    """
    before = current.deployment(spec.name) if current else None
    if current is None or before is None or before.looked_among != _python_paths(request.files):
        return None
    if before.prefix is None and spec.prefix is not None:  # a class of methods can be called, and not be asked
        return None
    files = {path: text for d in current.deployments if d.entry == spec.name for path, text in d.modules.items()}
    if relevant_files(Snapshot(digest=request.code, files=request.files, total_bytes=0), files) != files:
        return None
    now = spec.model_dump(mode="json")
    same = all(now[key] == before.spec[key] for key in LOOKED_AT)
    if not same or now["ray_actor_options"]["runtime_env"] != before.spec["ray_actor_options"]["runtime_env"]:
        return None
    return TargetReport(
        ok=True,
        modules=tuple(before.modules),
        operations=before.operations,
        options=before.options,
        graph=before.graph,
        installed=before.installed,
    )


def _of_bound(entry: TargetReport, bound: str) -> TargetReport:
    """What is known of another deployment of an application: which of its modules it needs."""
    needed = next((node.get("modules") for node in entry.graph if node["name"] == bound), None)
    modules = entry.modules if needed is None else tuple(needed)
    return replace(entry, graph=(), options={}, operations=(), modules=modules)


def _python_paths(files: Mapping[str, str]) -> str:
    """A short hash of which Python files there are, whatever is in them."""
    return hashlib.sha256("\0".join(sorted(path for path in files if path.endswith(".py"))).encode()).hexdigest()[:16]


def _known_middlewares(
    request: ApplyRequest, spec: StackSpec, current: DesiredStack | None
) -> dict[str | None, set[str]]:
    """The modules of those owners' middlewares whose imports are all known, in code that is as it was."""
    if current is None or current.code != request.code:
        return {}
    known: dict[str | None, set[str]] = {}
    if _imports_the_same(spec.http_options.middlewares, current.http_middlewares):
        known[None] = set(current.http_middleware_modules)
    for deployment in spec.deployments:
        before = current.deployment(deployment.name)
        if before is not None and _imports_the_same(deployment.middlewares, before.middlewares):
            known[deployment.name] = set(before.middleware_modules)
    return known


def _imports_the_same(said: list[MiddlewareSpec], before: tuple[Middleware, ...]) -> bool:
    """Whether the modules that are known are those of these middlewares: all of them are imported, and no other was.

    With other arguments they are built, or refused, when they are staged.
    """
    return {m.import_path for m in said} == {m.import_path for m in before}


def _known_policies(request: ApplyRequest, spec: StackSpec, current: DesiredStack | None) -> dict[str, set[str]]:
    """The modules of those policies that were looked at, in code that is as it was."""
    if current is None or current.code != request.code:
        return {}
    known = {}
    for deployment in spec.deployments:
        before = current.deployment(deployment.name)
        if before is not None and before.policy is not None and before.policy.import_path == _policy(deployment):
            known[deployment.name] = set(before.policy_modules)
    return known


def _policy(deployment: DeploymentSpec) -> str | None:
    return deployment.scaling.policy if deployment.scaling is not None else None


def _unknown_policies(spec: StackSpec, looked: _Looked) -> list[_Addition]:
    """Those that have to be looked at."""
    unknown = []
    for i, deployment in enumerate(spec.deployments):
        if (import_path := _policy(deployment)) is not None and deployment.name not in looked.policy_modules:
            variables = deployment.ray_actor_options.runtime_env.get("env_vars") or {}
            asked = {"import_path": import_path, "role": "policy", "env_vars": variables}
            path = f"deployments[{i}].autoscaling_config.policy"
            unknown.append(_Addition(path=path, owner=deployment.name, asked=asked, is_policy=True))
    return unknown


def _unknown_middlewares(spec: StackSpec, looked: _Looked) -> list[_Addition]:
    """Those that have to be looked at."""
    owners: list[tuple[str, str | None, list[MiddlewareSpec]]] = [("http_options", None, spec.http_options.middlewares)]
    owners += [(f"deployments[{i}]", d.name, d.middlewares) for i, d in enumerate(spec.deployments)]
    return [
        _Addition(f"{where}.middlewares[{i}].import_path", owner, middleware.model_dump(mode="json"))
        for where, owner, middlewares in owners
        if owner not in looked.middleware_modules
        for i, middleware in enumerate(middlewares)
    ]


def _by_runtime_env(
    deployments: list[DeploymentSpec], *, also_empty: bool
) -> list[tuple[Mapping[str, Any], list[DeploymentSpec]]]:
    groups: dict[bytes, tuple[Mapping[str, Any], list[DeploymentSpec]]] = {}
    if also_empty:
        groups[b"{}"] = ({}, [])
    for deployment in deployments:
        runtime_env = deployment.ray_actor_options.runtime_env
        key = msgspec.json.encode(runtime_env, order="deterministic")
        groups.setdefault(key, (runtime_env, []))[1].append(deployment)
    return list(groups.values())


def _target(spec: DeploymentSpec) -> dict[str, Any]:
    return {**spec.model_dump(mode="json", include=set(LOOKED_AT)), "routed": spec.prefix is not None}


def _problem(path: str, report: TargetReport, deployment: str | None, secrets: Secrets) -> CodeProblem:
    return CodeProblem(
        path=path,
        message=hide(report.error or "can't be served", secrets),
        deployment=deployment,
        traceback=hide(report.traceback or "", secrets),
        hint=report.hint,
    )


def _with_options(spec: StackSpec, reports: Mapping[str, TargetReport]) -> StackSpec:
    """Options of ``@serve.deployment`` objects are the defaults under the file's own keys."""
    deployments = []
    for deployment in spec.deployments:
        options = reports[deployment.name].options
        if options:
            said = deployment.model_dump(mode="json", exclude_unset=True)
            deployment = DeploymentSpec.model_validate_json(msgspec.json.encode({**options, **said}))
            for one in group_conflicts(deployment.model_dump(mode="json")):
                message = one.message.replace("{first}", "" if one.first is None else one.first)
                raise AuthorError(
                    f"deployment '{deployment.name}': {one.key}: {message}", hint=one.hint, code="invalid_spec"
                )
        deployments.append(deployment)
    return spec.model_copy(update={"deployments": deployments})
