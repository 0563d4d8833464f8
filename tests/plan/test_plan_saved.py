"""A plan as a file."""

from __future__ import annotations

import json

import pytest

from serveconf.errors import AuthorError, Conflict
from serveconf.plan.desired import make_desired
from serveconf.plan.diff import make_plan
from serveconf.plan.saved import (
    SavedPlan,
    check_fresh,
    decode_plan,
    digest_of_spec,
    encode_plan,
    looks_like_a_plan,
    plan_from_json,
)
from serveconf.plan.state import Observed
from serveconf.spec.models import StackSpec

SPEC = {"name": "shop", "deployments": [{"name": "a", "import_path": "m:app"}]}


def saved() -> SavedPlan:
    stack = StackSpec.model_validate_json(json.dumps(SPEC))
    plan = make_plan(None, make_desired(stack, revision=4, code="c", files_for=lambda _name: {}), Observed())
    document = plan_from_json(plan.as_json())
    return SavedPlan(plan=document, spec=SPEC, spec_digest=digest_of_spec(SPEC), code="c", source="serve.yaml")


def test_a_saved_plan_comes_back_as_it_was() -> None:
    assert decode_plan(encode_plan(saved())) == saved()


def test_a_saved_plan_is_told_from_a_spec() -> None:
    assert looks_like_a_plan(encode_plan(saved()))
    assert not looks_like_a_plan(b"name: shop\n")
    assert not looks_like_a_plan(json.dumps(SPEC).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"name: shop", b"\xff", b'{"format": "serveconf-plan-9"}'])
def test_what_is_no_plan_is_refused(data: bytes) -> None:
    with pytest.raises(AuthorError) as caught:
        decode_plan(data)
    assert caught.value.code == "bad_plan"


def test_a_plan_whose_spec_was_edited_is_refused() -> None:
    with pytest.raises(AuthorError, match="edited"):
        decode_plan(encode_plan(saved()).replace(b"m:app", b"m:evil"))


def test_a_plan_of_another_revision_or_other_code_is_stale() -> None:
    check_fresh(saved(), revision=0, code="c")
    with pytest.raises(Conflict, match="was at revision 0 and is at 3 now") as caught:
        check_fresh(saved(), revision=3, code="c")
    assert caught.value.code == "stale_plan"
    with pytest.raises(Conflict, match="code in app_dir has changed"):
        check_fresh(saved(), revision=0, code="d")


def test_a_plan_of_another_spec_is_stale() -> None:
    check_fresh(saved(), revision=0, code="c", spec=dict(reversed(SPEC.items())))
    with pytest.raises(Conflict, match=r"serve\.yaml, or a variable"):
        check_fresh(saved(), revision=0, code="c", spec=SPEC | {"name": "other"})
