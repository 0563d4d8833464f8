"""A plan where no cluster runs yet: everything would be created. Made here, by the same functions that the controller uses."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from serveconf.client import CodeRejected
from serveconf.code.looking import look_at_code
from serveconf.plan.diff import make_plan
from serveconf.plan.state import Observed
from serveconf.reconcile.ports import Question, TargetReport
from serveconf.reconcile.prepare import CodeRefused, prepare
from serveconf.reconcile.requests import ApplyRequest
from serveconf.reconcile.result import code_failures, problem_of
from serveconf.submit import Submission


class FolderPreflight:
    """Implements ``reconcile.ports.Preflight`` on app_dir as it lies there."""

    def __init__(self, app_dir: str) -> None:
        self._app_dir = app_dir

    async def inspect(self, question: Question) -> tuple[list[TargetReport], list[TargetReport]]:
        """What each target and each middleware is. A runtime environment is the cluster's to make: its variables alone hold here."""
        env_vars = question.runtime_env.get("env_vars") or {}
        found = look_at_code(
            code_dir=self._app_dir,
            cwd=self._app_dir,
            targets=[{**target, "env_vars": env_vars} for target in question.targets],
            middlewares=question.middlewares,
            timeout_s=question.timeout_s,
        )
        reports = msgspec.convert(found, dict[str, list[TargetReport]])
        return reports["targets"], reports["middlewares"]


def plan_offline(submission: Submission) -> dict[str, Any]:
    """The contract's plan JSON. Raises CodeRejected, as the control API would, where the code can't be served."""
    request = msgspec.convert(submission.body, ApplyRequest)
    preflight = FolderPreflight(str(submission.app_dir))
    try:
        desired = asyncio.run(prepare(request, revision=1, current=None, preflight=preflight))
    except CodeRefused as refused:
        raise CodeRejected(refused.message, [problem_of(failure) for failure in code_failures(refused)]) from refused
    return make_plan(None, desired, Observed()).as_json()
