"""A preflight that imports nothing, for plans that are asked with the read-only token: importing code is running it.

What a deployment imports is taken from the revision that serves; of what is new every Python file of the package counts.
So a plan of it may roll more than an apply would, never less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.reconcile.ports import Question, TargetReport

NOTE = "made without importing the code, which the read-only token may not: more may be shown as changed than is"


class Unseen:
    """Implements ``reconcile.ports.Preflight``. ``files``: those of the package that was not looked at."""

    def __init__(self, current: DesiredStack | None, files: Mapping[str, str]) -> None:
        self._current = current
        self._python = tuple(path for path in files if path.endswith(".py"))
        self.asked = False  # whether there was anything that only an import could have told

    async def inspect(self, question: Question) -> tuple[list[TargetReport], list[TargetReport]]:
        """What is known of each target and each middleware."""
        self.asked = True
        targets = [self._target(str(target["import_path"])) for target in question.targets]
        return targets, [self._middleware(str(one["import_path"])) for one in question.middlewares]

    def _target(self, import_path: str) -> TargetReport:
        before = next((d for d in self._deployments() if d.spec.get("import_path") == import_path), None)
        if before is None:
            return TargetReport(ok=True, modules=self._python)
        return TargetReport(
            ok=True,
            modules=tuple(before.modules),
            operations=before.operations,
            options=before.options,
            graph=before.graph,
        )

    def _middleware(self, import_path: str) -> TargetReport:
        known = [dict(d.middleware_modules) for d in self._deployments() if _names(d.middlewares, import_path)]
        known += [dict(d.policy_modules) for d in self._deployments() if _names([d.policy], import_path)]
        if self._current is not None and _names(self._current.http_middlewares, import_path):
            known.append(self._current.http_middleware_modules)
        return TargetReport(ok=True, modules=tuple({path for modules in known for path in modules}))

    def _deployments(self) -> Iterable[DesiredDeployment]:
        return self._current.deployments if self._current else ()


def _names(middlewares: Iterable[object], import_path: str) -> bool:
    return any(getattr(one, "import_path", None) == import_path for one in middlewares)
