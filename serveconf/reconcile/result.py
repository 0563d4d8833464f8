"""What became of an apply as the contract's JSON, and failures and specs in the form in which they may be shown. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from serveconf.plan.masks import shown
from serveconf.reconcile.operation import Event
from serveconf.reconcile.prepare import CodeRefused
from serveconf.reconcile.receipt import Receipt
from serveconf.reconcile.records import Failure
from serveconf.spec.problems import join


def make_result(
    stack: str,
    *,
    outcome: str,
    revision: int | None = None,
    changed: bool = False,
    actions: list[dict[str, Any]] | None = None,
    receipt: dict[str, Any] | None = None,
    failures: list[Failure] | None = None,
) -> Event:
    """The contract's apply JSON."""
    return {
        "stack": stack,
        "revision": revision,
        "changed": changed,
        "outcome": outcome,
        "actions": actions or [],
        "receipt": dict(receipt or msgspec.to_builtins(Receipt())),
        "problems": [problem_of(failure) for failure in failures or ()],
    }


def code_failures(refused: CodeRefused) -> list[Failure]:
    """Every piece of code that could not be taken."""
    return [
        Failure(
            code=refused.code,
            message=p.message,
            deployment=p.deployment,
            traceback=p.traceback,
            hint=p.hint,
            path=p.path,
        )
        for p in refused.problems
    ]


def problem_of(failure: Failure) -> dict[str, Any]:
    """A failure in the form of the contract's problems; the client knows the file and the line."""
    return {
        "file": "",
        "line": 0,
        "column": 0,
        "path": failure.path,
        "message": failure.message,
        "code": failure.code,
        "severity": "error",
        "hint": failure.hint,
        "deployment": failure.deployment,
        "traceback": failure.traceback,
    }


def masked(spec: dict[str, Any], masks: dict[str, str]) -> dict[str, Any]:
    """The spec as it may be shown: values that came from variables stand as the variables, and what only looks like one as in a
    file (``$${NAME}``), so that it can be told from those."""
    return {key: shown(_escaped(value, key, masks), key, masks) for key, value in spec.items()}


def _escaped(value: Any, path: str, masks: dict[str, str]) -> Any:
    match value:
        case str() if "${" in value and path not in masks:
            return value.replace("$", "$$")
        case dict():
            return {key: _escaped(inside, join(path, key), masks) for key, inside in value.items()}
        case list():
            return [_escaped(inside, join(path, index), masks) for index, inside in enumerate(value)]
        case _:
            return value
