"""Looking at code in a throw-away process: a plain child on this node, or, for a runtime environment, a Ray task in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf.cluster.engine import Engine, EngineError
from serveconf.cluster.ray_engine import RayStore
from serveconf.cluster.settings import node_folder
from serveconf.cluster.variables import expanded, split
from serveconf.code.looking import Reports, WarmInspector, look_at_code
from serveconf.errors import AuthorError
from serveconf.ingress.failures import with_own_paths
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import Question, TargetReport

SPARE_S = 60.0  # for a runtime environment to be built
THREADS = 256  # at most: code that hangs when it is imported holds up no other


class EnginePreflight:
    """Implements ``reconcile.ports.Preflight``."""

    def __init__(self, engine: Engine, cluster_id: str, packages: Packages) -> None:
        self._engine = engine
        self._cluster_id = cluster_id
        self._packages = packages
        self._warm = WarmInspector()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="look")

    async def warm_up(self) -> None:
        """Have the process ready that looks at code."""
        await asyncio.to_thread(self._warm.warm_up)

    async def inspect(self, question: Question) -> tuple[list[TargetReport], list[TargetReport]]:
        """What each target and each middleware is, in the given order."""
        if not question.code:
            return await self._inspect(question, None)
        async with self._packages.for_a_while(question.code) as folder:
            return await self._inspect(question, folder)

    async def _inspect(self, question: Question, folder: Path | None) -> tuple[list[TargetReport], list[TargetReport]]:
        told, _ = split(question.runtime_env)
        if told:
            limit = question.timeout_s * (len(question.targets) + len(question.middlewares)) + SPARE_S
            try:
                answer = await self._engine.run(
                    _look_in_environment,
                    self._cluster_id,
                    question,
                    runtime_env=told,
                    timeout_s=limit,
                )
            except EngineError as error:
                raise AuthorError(
                    f"the runtime environment can't be used: {error}", code="runtime_env_failed"
                ) from error
        else:
            looking = self._threads.submit(_look, question, folder, self._warm.look_at_code)
            answer = await asyncio.wrap_future(looking)
        read = msgspec.convert(answer, dict[str, list[TargetReport]])
        shown = {
            kind: [_shown(report, folder, question.app_dir) for report in reports] for kind, reports in read.items()
        }
        return shown["targets"], shown["middlewares"]


def _look(question: Question, folder: Path | None, look: Callable[..., Reports] = look_at_code) -> Any:
    variables = expanded(split(question.runtime_env)[1])
    return look(
        code_dir=str(folder) if folder else None,
        cwd=question.app_dir,
        targets=[{**target, "env_vars": variables} for target in question.targets],
        middlewares=question.middlewares,
        timeout_s=question.timeout_s,
    )


def _look_in_environment(cluster_id: str, question: Question) -> Any:
    packages = Packages(RayStore(), node_folder(cluster_id) / "code")
    try:
        return _look(question, asyncio.run(packages.folder(question.code)) if question.code else None)
    finally:
        packages.use_only(())


def _shown(report: TargetReport, code: Path | None, app_dir: str | None) -> TargetReport:
    """The report, with paths that its reader knows."""
    error, trace = (with_own_paths(text or "", code, app_dir) or None for text in (report.error, report.traceback))
    return replace(report, error=error, traceback=trace)
