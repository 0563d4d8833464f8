"""What happens when the code of a spec is imported: asked of a child process, so that nothing of it runs here.

In: a loaded spec, or import paths. Out: problems at the import_path's place, or the kind of each object.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serveconf.spec.load import Loaded
from serveconf.spec.problems import Problem

_GRACE_S = 15  # for the child's own start and end


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one import gave."""

    ok: bool
    kind: str | None = None  # asgi, class, function, deployment
    error: str | None = None
    traceback: str | None = None
    hint: str | None = None


Asked = dict[str, Any]


def import_problems(loaded: Loaded, timeout: float) -> Iterator[Problem]:
    """A problem for each import of the spec that fails. ``timeout``: seconds for each."""
    places, targets = [], []
    for index, deployment in enumerate(loaded.spec.deployments):
        places.append(f"deployments[{index}].import_path")
        targets.append(
            target(deployment.import_path, deployment.factory, deployment.init_args, deployment.init_kwargs),
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


def target(import_path: str, factory: bool = False, args: Any = (), kwargs: Any = None) -> Asked:
    """One object to look at."""
    return {"import_path": import_path, "factory": factory, "init_args": list(args), "init_kwargs": kwargs or {}}


def inspect(code_dir: Path, targets: list[Asked], middlewares: list[Asked], timeout: float) -> list[Outcome]:
    """The outcome for each target, then for each middleware. ``timeout``: seconds for each."""
    number = len(targets) + len(middlewares)
    if not number:
        return []
    question = {
        "code_dir": str(code_dir),
        "cwd": str(code_dir),
        "timeout_s": timeout,
        "targets": targets,
        "middlewares": middlewares,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "serveconf.ingress.inspect"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout * number + _GRACE_S,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return [Outcome(ok=False, error=f"the import took longer than {timeout:g} s")] * number
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return [
            Outcome(ok=False, error=f"the process that imports ended with code {done.returncode}: {last[0]}")
        ] * number
    fields = ("ok", "kind", "error", "traceback", "hint")
    return [
        Outcome(**{key: found[key] for key in fields if key in found})
        for found in (*answer["targets"], *answer["middlewares"])
    ]
