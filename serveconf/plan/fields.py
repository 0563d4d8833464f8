"""Changed fields and files as actions and reasons: which changed, from what, to what. What came from a variable is shown as that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serveconf.plan.actions import Action, Reason, Why
from serveconf.plan.costs import ABSENT, Change
from serveconf.plan.kinds import ActionKind
from serveconf.spec.models import Cost
from serveconf.spec.problems import join

Masks = Mapping[str, str]


def field_action(
    action: ActionKind,
    deployment: str | None,
    cost: Cost,
    changed: Sequence[Change],
    *,
    masks: tuple[Masks, Masks],
) -> Action:
    """The action that a change of these fields asks for. ``masks``: those of before, those of after."""
    return Action(
        action=action,
        deployment=deployment,
        cost=cost,
        why=(fields_changed(changed),),
        before=values_before(changed, masks[0]),
        after=values_after(changed, masks[1]),
    )


def fields_changed(changed: Sequence[Change]) -> Why:
    """The reason that these fields give."""
    return Why(Reason.SPEC_CHANGED, tuple(change.path for change in changed))


def values_before(changed: Sequence[Change], masks: Masks) -> dict[str, Any]:
    """What the fields were, by their path; a key that was not there is not there."""
    return {c.path: shown(c.before, c.path, masks) for c in changed if c.before is not ABSENT}


def values_after(changed: Sequence[Change], masks: Masks) -> dict[str, Any]:
    """What the fields become."""
    return {c.path: shown(c.after, c.path, masks) for c in changed if c.after is not ABSENT}


def files_changed(before: Mapping[str, str], after: Mapping[str, str]) -> Why:
    """The reason that a difference between two sets of files gives."""
    paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return Why(Reason.CODE_CHANGED, tuple(paths))


def shown(value: Any, path: str, masks: Mapping[str, str]) -> Any:
    """``value``, which stands at ``path``, with everything masked that ``masks`` names."""
    if not masks:
        return value
    mask = masks.get(path)
    if mask is not None:
        return mask
    match value:
        case Mapping():
            return {key: shown(inside, join(path, key), masks) for key, inside in value.items()}
        case list() | tuple():
            return [shown(inside, join(path, index), masks) for index, inside in enumerate(value)]
        case _:
            return value
