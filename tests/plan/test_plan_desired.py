"""What a spec comes to as desired state."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from serveconf.plan.desired import make_desired
from serveconf.plan.scaling import scaled
from serveconf.plan.shadow import shadowed
from serveconf.plan.state import DesiredStack
from serveconf.routing import Middleware
from serveconf.spec.models import StackSpec


def desired(spec: dict[str, Any], *, code: str = "c1", **more: Any) -> DesiredStack:
    made = StackSpec.model_validate_json(json.dumps(spec))
    return make_desired(made, revision=1, code=code, **({"files_for": lambda _name: {}} | more))


A = {"name": "a", "import_path": "m:app"}
FRAME = {"import_path": "m:M", "args": [1], "kwargs": {"k": "v"}}


def test_defaults_are_filled_in_and_only_what_the_file_sets_stays_in_http_options() -> None:
    stack = desired({"http_options": {"port": 8000, "middlewares": [{"import_path": "m:M"}]}, "deployments": [A]})
    (a,) = stack.deployments
    assert (a.prefix, a.num_replicas, a.spec["route_prefix"]) == ("/a", 1, "/a")
    assert a.spec["ray_actor_options"]["num_cpus"] == 0.1
    assert stack.http_options == {
        "port": 8000,
        "middlewares": [{"import_path": "m:M", "args": [], "kwargs": {}}],
    }


def test_null_is_not_reachable_over_http() -> None:
    assert desired({"deployments": [A | {"route_prefix": None}]}).deployments[0].prefix is None


def test_middlewares_carry_the_package_that_they_come_from() -> None:
    stack = desired({"http_options": {"middlewares": [FRAME]}, "deployments": [A | {"middlewares": [FRAME]}]})
    frame = Middleware(import_path="m:M", args=(1,), kwargs={"k": "v"}, code="c1")
    assert stack.http_middlewares == stack.deployments[0].middlewares == (frame,)


@pytest.mark.parametrize(
    ("scaling", "replicas"),
    [({"min_replicas": 2, "max_replicas": 9}, 2), ({"min_replicas": 2, "max_replicas": 9, "initial_replicas": 5}, 5)],
)
def test_autoscaling_begins_with_its_initial_replicas(scaling: dict[str, int], replicas: int) -> None:
    assert desired({"deployments": [A | {"autoscaling_config": scaling}]}).deployments[0].num_replicas == replicas


def test_a_number_that_follows_the_load_is_kept_by_an_apply_within_its_bounds() -> None:
    scaling = {"min_replicas": 1, "max_replicas": 9}
    before = scaled(desired({"deployments": [A | {"autoscaling_config": scaling}]}), {"a": 7})
    for change, replicas in (
        ({"user_config": 1, "autoscaling_config": scaling}, 7),
        ({"autoscaling_config": scaling | {"max_replicas": 4}}, 4),
        ({"autoscaling_config": scaling | {"min_replicas": 8}}, 8),
        ({"autoscaling_config": scaling | {"dry_run": True, "initial_replicas": 2}}, 2),
        ({"num_replicas": 3}, 3),
    ):
        assert desired({"deployments": [A | change]}, current=before).deployments[0].num_replicas == replicas


def test_what_makes_no_replica_different_keeps_its_version() -> None:
    version = desired({"deployments": [A]}).deployments[0].version
    for same in ({"num_replicas": 3}, {"route_prefix": "/x"}, {"user_config": 1}, {"rollout": {"bake_s": 1}}):
        assert desired({"deployments": [A | same]}).deployments[0].version == version
    for other in ({"init_args": [1]}, {"ray_actor_options": {"num_cpus": 1}}, {"import_path": "m:other"}):
        assert desired({"deployments": [A | other]}).deployments[0].version != version
    assert desired({"deployments": [A]}, files_for=lambda _name: {"m.py": "1"}).deployments[0].version != version


def test_a_user_config_has_one_hash_whatever_the_order_of_its_keys() -> None:
    one = desired({"deployments": [A | {"user_config": {"a": 1, "b": 2}}]}).deployments[0].config_hash
    two = desired({"deployments": [A | {"user_config": {"b": 2, "a": 1}}]}).deployments[0].config_hash
    three = desired({"deployments": [A | {"user_config": {"b": 2, "a": True}}]}).deployments[0].config_hash
    assert one == two != three


def test_masks_go_to_the_deployment_that_they_are_about() -> None:
    stack = desired(
        {"deployments": [A, A | {"name": "b"}]},
        masks={"deployments[1].init_kwargs.x": "${X}", "http_options.host": "${H}"},
    )
    assert [d.masks for d in stack.deployments] == [{}, {"init_kwargs.x": "${X}"}]
    assert stack.masks == {"host": "${H}"}


def test_what_did_not_change_keeps_the_package_it_came_from() -> None:
    spec = {"http_options": {"middlewares": [FRAME]}, "deployments": [A | {"middlewares": [FRAME]}, A | {"name": "b"}]}

    def at(code: str, of_b: str, **more: Any) -> DesiredStack:
        files = {"a": {"a.py": "1"}, "b": {"b.py": of_b}}
        return desired(spec, code=code, files_for=lambda name: files[name], middleware_files_for=lambda _: {}, **more)

    first = at("c1", "1")
    second = at("c2", "2", current=first)
    assert [d.code for d in second.deployments] == ["c1", "c2"]
    assert second.code == "c2"
    assert (second.deployments[0], second.http_middlewares) == (first.deployments[0], first.http_middlewares)


def test_middlewares_of_which_nobody_knows_the_files_move_with_the_package() -> None:
    spec = {"deployments": [A | {"middlewares": [FRAME]}]}
    second = desired(spec, code="c2", current=desired(spec, code="c1"))
    assert second.deployments[0].middlewares[0].code == "c2"


def test_desired_state_comes_back_from_the_store_as_it_was() -> None:
    stack = desired(
        {"http_options": {"middlewares": [FRAME]}, "deployments": [A | {"user_config": {"x": [1, None, 0.5]}}]},
        operations={"a": ["GET /"]},
    )
    assert msgspec.json.decode(msgspec.json.encode(stack), type=DesiredStack) == stack


def test_operations_below_a_prefix_of_another_deployment_are_reported() -> None:
    stack = desired(
        {"deployments": [A | {"route_prefix": "/"}, A | {"name": "b"}, A | {"name": "c", "route_prefix": "/x/c"}]},
        operations={"a": ["GET /b/items/{id}", "GET /bat", "GET /{any}", "POST /b", "GET /x/{y}"], "b": ["GET /c"]},
    )
    assert shadowed(stack) == ("GET /b/items/{id}, POST /b of 'a' cannot be reached: /b belongs to 'b'",)


def test_rule_that_another_one_always_comes_before_is_a_warning() -> None:
    stack = desired(
        {
            "deployments": [
                {**A, "name": "b", "route_prefix": "/x", "match": {"hosts": ["h.example"], "headers": {"v": "1"}}},
                {**A, "name": "a", "route_prefix": "/x", "match": {"hosts": ["h.example"], "headers": {"V": None}}},
            ]
        }
    )
    assert shadowed(stack) == ("no request for 'h.example/x v: 1' reaches 'b': 'a' takes them first",)


def test_operations_are_out_of_reach_only_where_the_other_rule_asks_for_the_same() -> None:
    below = {**A, "name": "b", "route_prefix": "/a/items"}
    operations = {"a": ["GET /items"]}
    assert len(shadowed(desired({"deployments": [A, below]}, operations=operations))) == 1
    matched = {**below, "match": {"hosts": ["h.example"]}}
    assert shadowed(desired({"deployments": [A, matched]}, operations=operations)) == ()


@pytest.mark.parametrize(
    ("said", "folder", "same"),
    [
        ("/srv/shop/code", "/srv/shop/code", True),
        ("code", "/srv/shop/code", True),
        ("/srv/other", "/srv/other", False),
        ("other", "/srv/shop/other", False),
    ],
)
def test_a_full_path_to_the_folder_that_serves_is_no_other_app_dir(said: str, folder: str, same: bool) -> None:
    before = desired({"app_dir": "code", "deployments": [A]}, app_dir="/srv/shop/code")
    after = desired({"app_dir": said, "deployments": [A]}, app_dir=folder, current=before)
    assert (after.deployments[0].version == before.deployments[0].version) is same
    assert (after.said_app_dir == "code") is same
