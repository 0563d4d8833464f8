"""What a plan says, with its reasons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serveconf.plan.actions import Plan
from serveconf.plan.desired import make_desired
from serveconf.plan.diff import make_plan
from serveconf.plan.moving import with_former_names
from serveconf.plan.state import DesiredStack, Observed, ProxyPhase, ProxyState, ReplicaPhase, ReplicaState
from serveconf.spec.models import StackSpec

CODE = {"catalog": {"shop/catalog.py": "1", "page.html": "1"}, "cart": {"shop/cart.py": "1"}}


def stack(
    *deployments: dict[str, Any],
    http_options: dict[str, Any] | None = None,
    files: dict[str, dict[str, str]] = CODE,
    code: str = "package 1",
    **more: Any,
) -> DesiredStack:
    spec = {
        "name": "shop",
        "http_options": http_options or {},
        "deployments": [{"import_path": f"shop.{d['name']}:app"} | d for d in deployments],
    }
    made = StackSpec.model_validate_json(json.dumps(spec))
    return make_desired(made, revision=7, code=code, files_for=lambda name: files.get(name, {}), **more)


def running(desired: DesiredStack) -> Observed:
    """Everything is there, as it should be."""
    replicas = [
        ReplicaState(
            id=f"{d.name}-{n}",
            stack=desired.name,
            deployment=d.name,
            version=d.version,
            phase=ReplicaPhase.READY,
            config_hash=d.config_hash,
        )
        for d in desired.deployments
        for n in range(d.num_replicas)
    ]
    return Observed(replicas=tuple(replicas))


def lines(plan: Plan) -> list[tuple[str, str | None, str, str]]:
    return [(a.action, a.deployment, a.cost.value, a.reason) for a in plan.actions]


CATALOG, CART = {"name": "catalog", "num_replicas": 2}, {"name": "cart"}


def test_a_first_plan_creates_everything_in_the_order_of_names() -> None:
    plan = make_plan(None, stack(CATALOG, CART), Observed())
    assert lines(plan) == [
        ("proxy", None, "proxy", "no proxy runs"),
        ("create", "cart", "scale", "new deployment"),
        ("create", "catalog", "scale", "new deployment"),
    ]
    assert plan.base_revision == 0
    assert plan.actions[2].before is None
    assert plan.actions[2].after == {"import_path": "shop.catalog:app", "route_prefix": "/catalog", "num_replicas": 2}


def test_same_content_plans_nothing() -> None:
    before = stack(CATALOG, CART)
    plan = make_plan(before, stack(CART, CATALOG, code="package 2"), running(before))
    assert plan.as_json() == {"stack": "shop", "base_revision": 7, "changed": False, "actions": []}


def test_changed_code_rolls_what_imports_it_and_names_the_files() -> None:
    before = stack(CATALOG, CART)
    after = stack(CATALOG, CART, files=CODE | {"catalog": {"shop/catalog.py": "2", "new.html": "1"}})
    (roll,) = make_plan(before, after, running(before)).actions
    assert roll.as_json() == {
        "action": "roll",
        "deployment": "catalog",
        "cost": "roll",
        "reason": "code changed: new.html, page.html, shop/catalog.py",
        "before": {"version": before.deployments[1].version, "replicas": 2},
        "after": {"version": after.deployments[1].version, "replicas": 2, "surge": 2},
    }


def test_one_deployment_may_need_several_actions_the_dearest_first() -> None:
    before = stack(CATALOG)
    after = stack(
        {
            "name": "catalog",
            "num_replicas": 3,
            "route_prefix": "/c",
            "user_config": {"t": 1},
            "init_kwargs": {"model": "big"},
            "rollout": {"max_surge": 1},
        }
    )
    plan = make_plan(before, after, running(before))
    assert lines(plan) == [
        ("roll", "catalog", "roll", "spec changed: init_kwargs.model"),
        ("scale", "catalog", "scale", "spec changed: num_replicas"),
        ("reconfigure", "catalog", "reconfigure", "spec changed: user_config"),
        ("route", "catalog", "route", "spec changed: route_prefix"),
        ("update", "catalog", "none", "spec changed: rollout.max_surge"),
    ]
    assert [a.after for a in plan.actions[1:4]] == [
        {"num_replicas": 3},
        {"user_config": {"t": 1}},
        {"route_prefix": "/c"},
    ]
    assert plan.actions[0].after is not None
    assert plan.actions[0].after["surge"] == 1
    assert plan.actions[0].after["init_kwargs.model"] == "big"
    assert "init_kwargs.model" not in (plan.actions[0].before or {})


def test_a_removed_key_goes_back_to_its_default() -> None:
    before, after = stack(CATALOG), stack({"name": "catalog"})
    (scale,) = make_plan(before, after, running(before)).actions
    assert (scale.before, scale.after) == ({"num_replicas": 2}, {"num_replicas": 1})


def test_a_rename_is_a_new_deployment_and_a_removal_which_comes_last() -> None:
    before, after = stack(CART), stack({"name": "zebra", "import_path": "shop.cart:app"})
    assert lines(make_plan(before, after, running(before))) == [
        ("create", "zebra", "scale", "new deployment"),
        ("remove", "cart", "remove", "no longer in the spec"),
    ]


def test_swapped_prefixes_are_two_routes_and_no_roll() -> None:
    before = stack({"name": "a", "route_prefix": "/x"}, {"name": "b", "route_prefix": "/y"})
    after = stack({"name": "a", "route_prefix": "/y"}, {"name": "b", "route_prefix": "/x"})
    assert [line[:3] for line in lines(make_plan(before, after, running(before)))] == [
        ("route", "a", "route"),
        ("route", "b", "route"),
    ]


def test_a_prefix_that_is_written_out_is_the_one_that_is_left_out() -> None:
    before, after = stack(CART), stack({"name": "cart", "route_prefix": "/cart"})
    assert not make_plan(before, after, running(before)).changed


def test_a_value_from_a_variable_is_never_shown() -> None:
    secret = {"name": "cart", "init_kwargs": {"keys": ["one", "s3cret"]}, "user_config": {"token": "s3cret"}}
    masks = {"deployments[1].init_kwargs.keys[1]": "${KEY}", "deployments[1].user_config.token": "${TOKEN}"}
    after = stack(CATALOG, secret, masks=masks)
    for before in (None, stack(CATALOG, CART)):
        text = json.dumps(make_plan(before, after, Observed()).as_json())
        assert "s3cret" not in text
        assert "${KEY}" in text
        assert "${TOKEN}" in text


def test_a_front_secret_is_never_shown() -> None:
    cors = [{"import_path": "m:M", "kwargs": {"key": "s3cret"}}]
    after = stack(http_options={"middlewares": cors}, masks={"http_options.middlewares[0].kwargs.key": "${KEY}"})
    text = json.dumps(make_plan(stack(), after, Observed()).as_json())
    assert "s3cret" not in text
    assert "${KEY}" in text


def test_http_options_that_differ_come_first() -> None:
    before = stack(CART, http_options={"port": 8000, "request_timeout_s": 5})
    after = stack({"name": "cart", "num_replicas": 2}, http_options={"port": 9000})
    plan = make_plan(before, after, running(before))
    assert lines(plan) == [
        ("proxy", None, "proxy", "spec changed: port"),
        ("route", None, "route", "spec changed: request_timeout_s"),
        ("scale", "cart", "scale", "spec changed: num_replicas"),
    ]
    assert (plan.actions[1].before, plan.actions[1].after) == ({"request_timeout_s": 5.0}, {"request_timeout_s": None})


def test_a_key_that_a_file_begins_to_set_to_its_default_is_recorded_at_no_cost() -> None:
    before, after = stack(CART), stack(CART, http_options={"port": 8000})
    (update,) = make_plan(before, after, running(before)).actions
    assert (update.action, update.cost, update.before, update.after) == ("update", "none", {}, {"port": 8000})


def test_missing_replicas_are_drift() -> None:
    desired = stack(CATALOG)
    observed = Observed(replicas=running(desired).replicas[:1])
    assert lines(make_plan(desired, desired, observed)) == [
        ("scale", "catalog", "scale", "replicas missing: 1 of 2 live")
    ]


@pytest.mark.parametrize("phase", [ReplicaPhase.DRAINING, ReplicaPhase.FAILED, ReplicaPhase.UNHEALTHY])
def test_a_replica_on_its_way_out_is_missing(phase: ReplicaPhase) -> None:
    desired = stack(CART)
    dying = ReplicaState(id="x", stack="shop", deployment="cart", version=desired.deployments[0].version, phase=phase)
    assert make_plan(desired, desired, Observed(replicas=(dying,))).changed


def test_replicas_of_another_version_are_drift() -> None:
    desired = stack(CATALOG)
    old = ReplicaState(id="x", stack="shop", deployment="catalog", version="old", phase=ReplicaPhase.READY)
    assert lines(make_plan(desired, desired, Observed(replicas=(old,)))) == [
        ("roll", "catalog", "roll", "replicas run another version: old")
    ]


def test_replicas_with_another_user_config_are_drift() -> None:
    desired = stack({"name": "cart", "user_config": {"t": 1}})
    version = desired.deployments[0].version
    odd = ReplicaState(
        id="x", stack="shop", deployment="cart", version=version, phase=ReplicaPhase.READY, config_hash="other"
    )
    assert lines(make_plan(desired, desired, Observed(replicas=(odd,)))) == [
        ("reconfigure", "cart", "reconfigure", "replicas have another user_config: x")
    ]


def test_replicas_that_nobody_asked_for_are_removed_and_other_stacks_are_left_alone() -> None:
    desired = stack(CART)
    stray = ReplicaState(id="x", stack="shop", deployment="old", version="1", phase=ReplicaPhase.READY)
    foreign = ReplicaState(id="y", stack="other", deployment="cart", version="1", phase=ReplicaPhase.READY)
    observed = Observed(replicas=(*running(desired).replicas, stray, foreign))
    (remove,) = make_plan(desired, desired, observed).actions
    assert (remove.action, remove.deployment, remove.before) == ("remove", "old", {"replicas": 1})


def test_autoscaled_replicas_within_their_bounds_are_no_drift() -> None:
    scaled = {"name": "cart", "autoscaling_config": {"min_replicas": 1, "max_replicas": 3}}
    desired = stack(scaled)
    one = running(desired).replicas[0]
    for count, changed in ((0, True), (1, False), (3, False), (4, True)):
        observed = Observed(replicas=(one,) * count)
        assert make_plan(desired, desired, observed).changed is changed


def test_what_a_schedule_allows_at_another_time_is_no_drift() -> None:
    night = {"from": "20:00", "until": "06:00", "min_replicas": 0, "max_replicas": 9}
    desired = stack({"name": "cart", "autoscaling_config": {"min_replicas": 1, "max_replicas": 3, "schedule": [night]}})
    one = running(desired).replicas[0]
    for count, changed in ((0, False), (9, False), (10, True)):
        assert make_plan(desired, desired, Observed(replicas=(one,) * count)).changed is changed


def test_a_proxy_that_is_gone_or_listens_elsewhere_is_drift() -> None:
    desired = stack(CART)
    replicas = running(desired).replicas
    proxy = ProxyState(id="p", node_id="n", phase=ProxyPhase.READY, listener="L")
    for proxies, listener, expected in (
        ((proxy,), "L", []),
        ((proxy,), None, []),
        ((proxy,), "M", [("proxy", None, "proxy", "proxies listen elsewhere: p")]),
        ((), "L", [("proxy", None, "proxy", "no proxy runs")]),
    ):
        observed = Observed(replicas=replicas, proxies=proxies)
        assert lines(make_plan(desired, desired, observed, listener=listener)) == expected


def test_operations_that_come_and_go_are_listed() -> None:
    before = stack(CART, operations={"cart": ["GET /", "GET /old"]})
    after = stack(CART, files={"cart": {"shop/cart.py": "2"}}, operations={"cart": ["GET /", "POST /new"]})
    (roll,) = make_plan(before, after, running(before)).actions
    assert (roll.before or {})["operations"] == ["GET /old"]
    assert (roll.after or {})["operations"] == ["POST /new"]


def test_changed_code_of_a_middleware_is_a_route_and_restarts_no_replica() -> None:
    guarded = {"name": "cart", "middlewares": [{"import_path": "shop.guard:Guard"}]}

    def at(version: str, code: str) -> DesiredStack:
        files = {"cart": {"shop/guard.py": version}, None: {"shop/front.py": version}}
        return stack(guarded, code=code, middleware_files_for=lambda name: files[name])

    before = at("1", "package 1")
    assert not make_plan(before, at("1", "package 2"), running(before)).changed
    assert lines(make_plan(before, at("2", "package 2"), running(before))) == [
        ("route", None, "route", "code changed: shop/front.py"),
        ("route", "cart", "route", "code changed: shop/guard.py"),
    ]


def test_a_renamed_deployment_is_a_route_and_what_else_changes_costs_what_it_costs() -> None:
    before = stack(CATALOG, CART)
    new = {"name": "goods", "import_path": "shop.catalog:app", "num_replicas": 3, "route_prefix": "/catalog"}
    files = {**CODE, "goods": CODE["catalog"]}
    after = with_former_names(stack(new, CART, files=files), {"goods": ("catalog",)})
    plan = make_plan(before, after, running(before))
    assert lines(plan) == [
        ("route", "goods", "route", "moved: catalog → goods"),
        ("scale", "goods", "scale", "spec changed: num_replicas"),
    ]
    assert plan.actions[0].before == {"name": "catalog"}


def test_a_renamed_deployment_with_other_code_is_a_route_and_a_roll_and_one_that_was_there_before_none() -> None:
    before = stack(CATALOG)
    new = {"name": "goods", "import_path": "shop.catalog:app", "num_replicas": 2, "route_prefix": "/catalog"}
    files = {"goods": CODE["catalog"] | {"shop/catalog.py": "2"}}
    after = with_former_names(stack(new, files=files), {"goods": ("catalog",)})
    plan = make_plan(before, after, running(before))
    assert [(kind, why) for kind, _, _, why in lines(plan)] == [
        ("route", "moved: catalog → goods"),
        ("roll", "code changed: shop/catalog.py"),
    ]
    assert not make_plan(after, after, running(after)).changed
