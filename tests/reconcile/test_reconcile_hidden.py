"""Failures of user code are told and kept without the values from variables that the code was given."""

from __future__ import annotations

import json
from typing import Any

import pytest
from world import World, request

from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.reconcile.ports import TargetReport
from serveconf.reconcile.records import Failure
from serveconf.reconcile.stacks import without_secrets

A: dict[str, Any] = {"name": "a", "import_path": "a:app", "init_kwargs": {"pass.word": "s3cret-1"}}
MASKS = {'deployments[0].init_kwargs["pass.word"]': "${PASSWORD}"}


@pytest.mark.anyio
async def test_code_that_cannot_be_imported_tells_no_secret(world: World) -> None:
    error = "a:app: ValueError: no login with s3cret-1"
    world.preflight.reports["a:app"] = TargetReport(ok=False, error=error, traceback=f"Traceback\n{error}")
    result = await world.run(world.plane.apply(request(A, masks=MASKS)))
    assert "s3cret" not in json.dumps(result)
    (problem,) = result["problems"]
    assert problem["message"] == "a:app: ValueError: no login with ${PASSWORD}"
    assert "${PASSWORD}" in problem["traceback"]


def test_a_failure_of_any_part_of_the_stack_tells_no_secret() -> None:
    stack = DesiredStack(
        name="s",
        revision=1,
        http_options={"middlewares": [{"kwargs": {"key": "s3cret-front"}}]},
        masks={"middlewares[0].kwargs.key": "${FRONT}"},
        deployments=(
            DesiredDeployment(
                name="a", prefix="/a", num_replicas=1, version="v", code="c",
                spec={"init_args": ["s3cret-args"]}, masks={"init_args[0]": "${ARGS}"},
            ),
        ),
    )  # fmt: skip
    failure = Failure(code="replica_failed", message="bad s3cret-args", traceback="k('s3cret-front')")
    hidden = without_secrets(failure, stack)
    assert (hidden.message, hidden.traceback) == ("bad ${ARGS}", "k('${FRONT}')")
