"""From a request to a ``DesiredStack``: the code is looked at in a throw-away process before anything is touched.

What was looked at for the revision that serves, and has not changed since, is not looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf.code.snapshot import Snapshot
from serveconf.code.versions import relevant_files
from serveconf.errors import AuthorError
from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.ports import Preflight, TargetReport
from serveconf.reconcile.requests import ApplyRequest
from serveconf.spec.models import DeploymentSpec, MiddlewareSpec, StackSpec

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
    spec = StackSpec.model_validate_json(msgspec.json.encode(request.spec))
    reports = await _look(request, spec, current, preflight)
    spec = _with_options(spec, reports)
    snapshot = Snapshot(digest=request.code, files=request.files, total_bytes=0)
    desired = make_desired(
        spec,
        revision=revision,
        code=request.code,
        files_for=lambda name: relevant_files(snapshot, reports[name].modules, exclude=_own_files(request)),
        masks=request.masks,
        app_dir=request.app_dir,
        operations={name: report.operations for name, report in reports.items()},
    )
    deployments = (replace(d, options=reports[d.name].options) for d in desired.deployments)
    return replace(desired, deployments=tuple(deployments))


async def _look(
    request: ApplyRequest, spec: StackSpec, current: DesiredStack | None, preflight: Preflight
) -> dict[str, TargetReport]:
    """What the code of each deployment is, by name; middlewares are only checked."""
    known = {d.name: report for d in spec.deployments if (report := _known(request, d, current)) is not None}
    middlewares = _new_middlewares(request, spec, current)
    unknown = [d for d in spec.deployments if d.name not in known]
    problems: list[CodeProblem] = []
    for runtime_env, group in _by_runtime_env(unknown, also_empty=bool(middlewares)):
        asked = middlewares if not runtime_env else {}
        reports, checks = await preflight.inspect(
            code=request.code,
            app_dir=request.app_dir,
            targets=[_target(d) for d in group],
            middlewares=[m.model_dump(mode="json") for m in asked.values()],
            runtime_env=runtime_env,
            timeout_s=max([60.0, *(d.rollout.ready_timeout_s for d in group)]),
        )
        known.update({d.name: report for d, report in zip(group, reports, strict=True)})
        for d, report in zip(group, reports, strict=True):
            if not report.ok:
                problems.append(_problem(f"deployments[{spec.deployments.index(d)}].import_path", report, d.name))
        problems += [
            _problem(f"{path}.import_path", check, None)
            for path, check in zip(asked, checks, strict=True)
            if not check.ok
        ]
    if problems:
        raise CodeRefused(problems)
    return known


def _known(request: ApplyRequest, spec: DeploymentSpec, current: DesiredStack | None) -> TargetReport | None:
    """What is known of a deployment from the revision that serves, if nothing that matters has changed since."""
    before = current.deployment(spec.name) if current else None
    if before is None or before.code != request.code:
        return None
    now = spec.model_dump(mode="json")
    same = all(now[key] == before.spec[key] for key in LOOKED_AT)
    if not same or now["ray_actor_options"]["runtime_env"] != before.spec["ray_actor_options"]["runtime_env"]:
        return None
    return TargetReport(ok=True, modules=tuple(before.modules), operations=before.operations, options=before.options)


def _new_middlewares(request: ApplyRequest, spec: StackSpec, current: DesiredStack | None) -> dict[str, MiddlewareSpec]:
    """The middlewares, by their path in the spec, that the revision that serves does not have."""
    found = {f"http_options.middlewares[{i}]": m for i, m in enumerate(spec.http_options.middlewares)}
    for i, deployment in enumerate(spec.deployments):
        found |= {f"deployments[{i}].middlewares[{j}]": m for j, m in enumerate(deployment.middlewares)}
    known = [*current.http_middlewares, *(m for d in current.deployments for m in d.middlewares)] if current else []
    seen = [(m.import_path, list(m.args), m.kwargs) for m in known if m.code == request.code]
    return {path: m for path, m in found.items() if (m.import_path, m.args, m.kwargs) not in seen}


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
    return spec.model_dump(mode="json", include=set(LOOKED_AT))


def _problem(path: str, report: TargetReport, deployment: str | None) -> CodeProblem:
    return CodeProblem(
        path=path,
        message=report.error or "can't be served",
        deployment=deployment,
        traceback=report.traceback or "",
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
        deployments.append(deployment)
    return spec.model_copy(update={"deployments": deployments})


def _own_files(request: ApplyRequest) -> list[str]:
    """The spec itself, where it lies in the app_dir: editing it is no change of code."""
    if not request.app_dir or not request.source.startswith(f"{request.app_dir}/"):
        return []
    return [request.source.removeprefix(f"{request.app_dir}/")]
