"""What happens when the code of a spec is imported: asked of a child process, so that nothing of it runs here.

In: a loaded spec, or import paths. Out: problems at the import_path's place, or the kind of each object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serveconf.code.looking import Asked, look_at_code
from serveconf.spec.load import Loaded
from serveconf.spec.problems import Problem


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one import gave."""

    ok: bool
    kind: str | None = None  # asgi, class, function, deployment
    error: str | None = None
    traceback: str | None = None
    hint: str | None = None


def import_problems(loaded: Loaded, timeout: float) -> Iterator[Problem]:
    """A problem for each import of the spec that fails. ``timeout``: seconds for each."""
    places, targets = [], []
    for index, deployment in enumerate(loaded.spec.deployments):
        places.append(f"deployments[{index}].import_path")
        targets.append(
            target(
                deployment.import_path,
                deployment.factory,
                deployment.init_args,
                deployment.init_kwargs,
                deployment.ray_actor_options.runtime_env.get("env_vars"),
                routed=deployment.prefix is not None,
            )
        )
    layers = [("http_options", loaded.spec.http_options.middlewares)]
    layers += [(f"deployments[{i}]", entry.middlewares) for i, entry in enumerate(loaded.spec.deployments)]
    middlewares = []
    for holder, given in layers:
        for index, one in enumerate(given):
            places.append(f"{holder}.middlewares[{index}].import_path")
            middlewares.append({"import_path": one.import_path, "args": one.args, "kwargs": one.kwargs})
    for place, outcome in zip(places, inspect(loaded.app_dir, targets, middlewares, timeout), strict=True):
        if not outcome.ok:
            details = "\n".join(filter(None, (outcome.hint, (outcome.traceback or "").strip())))
            yield loaded.problem(place, outcome.error or "cannot be imported", "import_failed", details or None)


def target(
    import_path: str,
    factory: bool = False,
    args: Any = (),
    kwargs: Any = None,
    env_vars: Mapping[str, str] | None = None,
    *,
    routed: bool = True,
) -> Asked:
    """One object to look at, with the variables that hold while it is imported."""
    return {
        "import_path": import_path, "factory": factory, "init_args": list(args), "init_kwargs": kwargs or {},
        "env_vars": dict(env_vars or {}), "routed": routed,
    }  # fmt: skip


def inspect(code_dir: Path, targets: list[Asked], middlewares: list[Asked], timeout: float) -> list[Outcome]:
    """The outcome for each target, then for each middleware. ``timeout``: seconds for each."""
    if not targets and not middlewares:
        return []
    answer = look_at_code(
        code_dir=str(code_dir), cwd=str(code_dir), targets=targets, middlewares=middlewares, timeout_s=timeout
    )
    fields = ("ok", "kind", "error", "traceback", "hint")
    return [
        Outcome(**{key: found[key] for key in fields if key in found})
        for found in (*answer["targets"], *answer["middlewares"])
    ]
