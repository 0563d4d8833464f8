"""Looking at code in a throw-away process: a plain child on this node, or, for a runtime environment, a Ray task in it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import ray
from msgspec.structs import replace

from serveconf.cluster.asking import ask
from serveconf.cluster.kv import RayStore
from serveconf.cluster.settings import node_folder
from serveconf.cluster.shown import with_own_paths
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import TargetReport

SPARE_S = 30.0  # for a runtime environment to be built


class RayPreflight:
    """Implements ``reconcile.ports.Preflight``."""

    def __init__(self, cluster_id: str, packages: Packages) -> None:
        self._cluster_id = cluster_id
        self._packages = packages

    async def inspect(
        self,
        *,
        code: str,
        app_dir: str | None,
        targets: list[dict[str, Any]],
        middlewares: list[dict[str, Any]],
        runtime_env: Mapping[str, Any],
        timeout_s: float,
    ) -> tuple[list[TargetReport], list[TargetReport]]:
        """What each target and each middleware is, in the given order."""
        asked = {"cwd": app_dir, "targets": targets, "middlewares": middlewares, "timeout_s": timeout_s}
        limit = timeout_s * max(1, len(targets)) + SPARE_S
        if runtime_env:
            task = ray.remote(_inspect_in_environment).options(num_cpus=0, runtime_env=dict(runtime_env))
            answer = await ask(task.remote(self._cluster_id, code, asked, limit), limit)
        else:
            folder = await self._packages.folder(code) if code else None
            answer = await asyncio.to_thread(_inspect, {**asked, "code_dir": str(folder) if folder else None}, limit)
        read = msgspec.convert(answer, dict[str, list[TargetReport]])
        folder = self._packages.path(code) if code else None
        shown = {kind: [_shown(report, folder, app_dir) for report in reports] for kind, reports in read.items()}
        return shown["targets"], shown["middlewares"]


def _shown(report: TargetReport, code: Path | None, app_dir: str | None) -> TargetReport:
    """The report, with paths that its reader knows."""
    error, trace = (with_own_paths(text or "", code, app_dir) or None for text in (report.error, report.traceback))
    return replace(report, error=error, traceback=trace)


def _inspect_in_environment(cluster_id: str, code: str, asked: dict[str, Any], limit: float) -> Any:
    packages = Packages(RayStore(), node_folder(cluster_id) / "code")
    folder: Path | None = asyncio.run(packages.folder(code)) if code else None
    return _inspect({**asked, "code_dir": str(folder) if folder else None}, limit)


def _inspect(asked: dict[str, Any], limit: float) -> Any:
    """Run the child; one that says nothing readable is reported for every target."""
    command = [sys.executable, "-m", "serveconf.ingress.inspect"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked).encode(), stdout=subprocess.PIPE, timeout=limit, cwd="/", check=False
        )
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        reason = f"the import did not end within {limit:g} s"
    except ValueError:
        reason = f"the process that imports it ended without an answer (exit code {done.returncode})"
    failed = {"ok": False, "error": reason}
    return {"targets": [failed for _ in asked["targets"]], "middlewares": [failed for _ in asked["middlewares"]]}
