"""The front of several stacks: what a conflict between two teams says, and what it keeps to itself."""

from __future__ import annotations

from typing import Any

import pytest

from serveconf.errors import Conflict
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.front import merge_fronts


def stack(name: str, masks: dict[str, str] | None = None, **options: Any) -> DesiredStack:
    return DesiredStack(name=name, revision=1, http_options=options, masks=masks or {})


def conflict(*stacks: DesiredStack) -> str:
    with pytest.raises(Conflict) as caught:
        merge_fronts(stacks)
    return str(caught.value)


def test_plain_values_that_differ_are_named() -> None:
    said = conflict(stack("one", port=8000), stack("two", port=9000))
    assert said == "http_options.port of stack 'two' is 9000, but stack 'one' serves with 8000"


def test_a_value_from_a_variable_stands_as_the_variable() -> None:
    masks = {"root_path": "/${TENANT}"}
    said = conflict(stack("one", masks, root_path="/s3cret"), stack("two", root_path="/other"))
    assert "s3cret" not in said and "'/${TENANT}'" in said


def test_what_another_teams_middlewares_are_given_is_told_to_nobody() -> None:
    mine, theirs = ([{"import_path": "m:M", "kwargs": {"key": key}}] for key in ("s3cret-mine", "s3cret-theirs"))
    said = conflict(stack("one", middlewares=theirs), stack("two", middlewares=mine))
    assert said == "http_options.middlewares of stack 'two' is not what stack 'one' serves with"
