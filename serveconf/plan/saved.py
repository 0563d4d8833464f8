"""A plan as a file (``plan --out``): what was reviewed, and all that is needed to apply just that.

The file holds the spec with its values filled in, secrets among them, so whoever writes it keeps it to its owner (0600).
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from serveconf.errors import AuthorError, Conflict
from serveconf.plan.costs import canonical


class PlanDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A plan in the contract's form, as the control API answers it. It is read, never performed: apply makes its own."""

    stack: str
    base_revision: int
    changed: bool
    actions: list[dict[str, Any]]


class SavedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What ``apply`` takes in place of a spec file."""

    format: Literal["serveconf-plan-1"] = "serveconf-plan-1"
    plan: PlanDocument
    spec: dict[str, Any]  # ``spec.models.as_wire``
    spec_digest: str
    code: str  # digest of the code package
    masks: dict[str, str] = {}
    source: str = ""  # the spec file
    app_dir: str = ""
    target: str = ""  # address of the control API that it was made with


def plan_from_json(document: dict[str, Any]) -> PlanDocument:
    """The plan that the control API answered."""
    return msgspec.convert(document, PlanDocument)


def encode_plan(saved: SavedPlan) -> bytes:
    """The plan as a JSON file that people can read too."""
    return msgspec.json.format(msgspec.json.encode(saved), indent=2) + b"\n"


def decode_plan(data: bytes) -> SavedPlan:
    """The plan from what ``encode_plan`` gave. Raises ``AuthorError`` for anything else."""
    try:
        saved = msgspec.json.decode(data, type=SavedPlan)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AuthorError(
            f"not a saved plan: {error}", code="bad_plan", hint="make one with: plan FILE --out PLAN"
        ) from error
    if digest_of_spec(saved.spec) != saved.spec_digest:
        raise AuthorError("the saved plan was edited after it was made", code="bad_plan", hint="make a new one")
    return saved


def looks_like_a_plan(data: bytes) -> bool:
    """Whether a file that is to be applied is a saved plan and no spec."""
    return data.lstrip()[:1] == b"{" and b'"serveconf-plan-' in data[:200]


def digest_of_spec(spec: dict[str, Any]) -> str:
    """What ``SavedPlan.spec_digest`` is made with."""
    return hashlib.sha256(canonical(spec)).hexdigest()


def check_fresh(saved: SavedPlan, *, revision: int, code: str, spec: dict[str, Any] | None = None) -> None:
    """Whether the plan still stands. ``spec``: what its source says now, where it was read again.

    Raises ``Conflict`` (code ``stale_plan``) where the stack, the code in app_dir or the spec moved on.
    """
    stack = saved.plan.stack
    if revision != saved.plan.base_revision:
        what = f"stack '{stack}' was at revision {saved.plan.base_revision} and is at {revision} now"
    elif code != saved.code:
        what = f"the code in {saved.app_dir or 'app_dir'} has changed"
    elif spec is not None and digest_of_spec(spec) != saved.spec_digest:
        what = f"{saved.source or 'the spec'}, or a variable that it uses, has changed"
    else:
        return
    raise Conflict(f"the plan is stale: {what}", code="stale_plan", hint="make a new plan and look at it again")
