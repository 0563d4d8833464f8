"""What is told of an apply on its way: begun, watched, served, taken back; pins; and applies that came to nothing. Pure.

``Stacks`` tells the transitions that it makes, so each of them is told once, whoever caused it and through crashes.
"""

from __future__ import annotations

from typing import Any

from serveconf.reconcile.journal import EventKind, Happening
from serveconf.reconcile.records import Failure, Revision, StackHead
from serveconf.reconcile.requests import NOBODY, ApplyRequest, Caller


def begun(revision: Revision, head: StackHead) -> Happening:
    """The revision is the stack's target. ``head``: as it is from now on."""
    what = "takes the stack away" if head.deleting else "is being applied"
    who = str(Caller(author=revision.author, token=revision.token))
    follows = f", following {revision.source}" if revision.automatic and revision.source else ""
    summary = revision.summary or "nothing changed"
    return _of(revision, head, f"revision {revision.number} {what}{who}{follows}: {summary}")


def watched(revision: Revision, head: StackHead) -> Happening:
    """It serves, and may still be taken back."""
    return _of(revision, head, f"revision {revision.number} serves, and its errors are watched")


def served(revision: Revision, head: StackHead) -> Happening:
    """It is what the stack is. ``head``: as it was while it was applied."""
    what = "is applied: the stack serves nothing any more" if head.deleting else "is applied"
    return _of(revision, head, f"revision {revision.number} {what}")


def taken_back(revision: Revision, head: StackHead, failure: Failure) -> Happening:
    """What served before goes on. ``head``: as it was until now."""
    kept = f"; revision {head.current} goes on" if head.current is not None else ""
    message = f"revision {revision.number} was taken back: {failure.message}{kept}"
    happening = _of(revision, head, message, code=failure.code, deployment=failure.deployment)
    if head.baking_until is None:
        return happening
    return Happening(**{**vars(happening), "kind": EventKind.ROLLBACK})  # nobody asked for it


def came_to_nothing(stack: str, request: ApplyRequest, result: dict[str, Any]) -> Happening:
    """An apply that was refused, or ended, before it was a revision."""
    problems = result["problems"]
    first = problems[0]["message"] if problems else result["outcome"]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Happening(
        kind=EventKind.APPLY,
        stack=stack,
        message=f"an apply{request.caller} changed nothing: {first}{more}",
        data={
            **request.caller.told(),
            "source": request.source,
            "outcome": result["outcome"],
            "code": problems[0]["code"] if problems else "",
        },
    )


def pin_changed(head: StackHead, caller: Caller = NOBODY, *, pinned: bool) -> Happening | None:
    """``head``: as it was until now."""
    if head.pinned == pinned:
        return None
    message = f"pinned{caller}: what watches its files leaves it alone" if pinned else f"the pin is ended{caller}"
    return Happening(kind=EventKind.PIN, stack=head.name, message=message, data=caller.told())


def scaled(stack: str, deployment: str, before: int, after: int, caller: Caller) -> Happening:
    """By hand."""
    return Happening(
        kind=EventKind.SCALE,
        stack=stack,
        deployment=deployment,
        message=f"{deployment} is set from {before} to {after} replicas{caller}, until the next apply",
        data={"before": before, "after": after, "cause": "hand", **caller.told()},
    )


def released(stack: str, caller: Caller) -> Happening:
    """An apply by hand has ended what was set by hand."""
    message = f"numbers of replicas that were set by hand hold no more: applied{caller}"
    return Happening(kind=EventKind.SCALE, stack=stack, message=message, data={"cause": "apply", **caller.told()})


def gone(stack: str) -> Happening:
    """The last replica of a stack that was taken away is gone."""
    return Happening(kind=EventKind.APPLY, stack=stack, message="the stack is gone")


def _of(revision: Revision, head: StackHead, message: str, **more: Any) -> Happening:
    return Happening(
        kind=EventKind.ROLLBACK if head.pinned else EventKind.APPLY,
        stack=revision.stack,
        message=message,
        data={
            "revision": revision.number,
            "author": revision.author,
            "token": revision.token,
            "source": revision.source,
            "commit": revision.commit,
            "operation": revision.operation,
            **more,
        },
    )
