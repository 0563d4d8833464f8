"""What became of an apply as the contract's JSON, and failures and specs in the form in which they may be shown. Pure.

Its receipt says what the apply did to the traffic: counted by the proxies while it ran, added up here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from serveconf.plan.fields import shown
from serveconf.reconcile.operations import Event
from serveconf.reconcile.ports import Counters
from serveconf.reconcile.prepare import CodeRefused
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


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The contract's ``receipt``. ``max_gap_ms``: the longest time between two answers while requests were waiting.

    ``uncounted``: so many proxies did not say what they had counted; left out where all did.
    """

    requests: int = 0
    failed: int = 0
    retried: int = 0
    max_gap_ms: float = 0.0
    streams_kept: int = 0
    streams_closed: int = 0
    duration_s: float = 0.0
    uncounted: int | msgspec.UnsetType = msgspec.UNSET


def add_up(counted: Iterable[Counters], *, proxies: int, duration_s: float) -> Receipt:
    """One receipt from what every proxy counted that answered, of so many."""
    counted = list(counted)
    return Receipt(
        requests=sum(c.requests for c in counted),
        failed=sum(c.failed for c in counted),
        retried=sum(c.retried for c in counted),
        max_gap_ms=round(max((c.max_gap_ms for c in counted), default=0.0), 1),
        streams_kept=sum(c.streams_kept for c in counted),
        streams_closed=sum(c.streams_closed for c in counted),
        duration_s=round(duration_s, 3),
        uncounted=proxies - len(counted) or msgspec.UNSET,
    )
