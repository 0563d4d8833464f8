"""Every field of a spec costs what its model declares."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from serveconf.plan.costs import FieldCost, changes, field_costs
from serveconf.plan.desired import make_desired
from serveconf.plan.diff import make_plan
from serveconf.plan.state import DesiredStack, Observed
from serveconf.spec.models import Cost, DeploymentSpec, HttpOptions, StackSpec

ACTION_OF = {
    Cost.NONE: "update",
    Cost.ROUTE: "route",
    Cost.RECONFIGURE: "reconfigure",
    Cost.SCALE: "scale",
    Cost.ROLL: "roll",
    Cost.PROXY: "proxy",
}

# A value other than the default, where no example of the model gives one.
OTHER: dict[str, Any] = {
    "import_path": "other:app",
    "process": "together",
    "tracing.endpoint": "http://127.0.0.1:4318",
    "autoscaling_config": {"min_replicas": 2, "max_replicas": 4},
    "autoscaling_config.min_replicas": 0,
    "rollout.max_error_rate": 0.5,
}


def leaves(fields: Mapping[str, FieldCost], model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Cost, Any]]:
    """Path, declared cost and another value of every field, those of nested models included."""
    for name, field in fields.items():
        here = f"{path}{name}"
        if field.inside:
            nested = next(
                kind
                for kind in (
                    model.model_fields[name].annotation,
                    *getattr(model.model_fields[name].annotation, "__args__", ()),
                )
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            )
            yield from leaves(field.inside, nested, f"{here}.")
        elif here != "name":
            yield here, field.cost, other_value(here, model, name)


def other_value(path: str, model: type[BaseModel], name: str) -> Any:
    if path in OTHER:
        return OTHER[path]
    info = model.model_fields[name]
    for example in info.examples or []:
        if example is not None and example != info.default:
            return example
    if isinstance(info.default, bool):
        return not info.default
    if isinstance(info.default, int | float):
        return info.default + 1
    if isinstance(info.default, list):
        return [{"import_path": "m:M"}] if name == "middlewares" else ["x"]
    raise AssertionError(f"say in OTHER what else {path} can be")


def desired(spec: dict[str, Any]) -> DesiredStack:
    stack = StackSpec.model_validate_json(json.dumps(spec))
    return make_desired(stack, revision=1, code="", files_for=lambda _name: {})


def with_value(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**spec, head: with_value(spec.get(head, {}), rest, value) if rest else value}


DEPLOYMENT = {"name": "a", "import_path": "m:app", "num_replicas": 3}
SCALING = {"min_replicas": 1, "max_replicas": 3}
WITHOUT_DEFAULT: dict[str, dict[str, Any]] = {
    "autoscaling_config": SCALING,
    "logging": {},
    "match": {"hosts": ["z.example"]},
    "mirror": {"deployment": "z", "percent": 1},
    "rollout": {"canary": {}},
    "session_affinity": {"cookie": "z"},
}
HTTP_WITHOUT_DEFAULT = {"tracing": {"endpoint": "http://z.example:4318", "sample": 0.5}}
DEPLOYMENT_FIELDS = list(leaves(field_costs(DeploymentSpec), DeploymentSpec))
HTTP_FIELDS = list(leaves(field_costs(HttpOptions), HttpOptions))


@pytest.mark.parametrize(("path", "cost", "value"), DEPLOYMENT_FIELDS, ids=[path for path, _, _ in DEPLOYMENT_FIELDS])
def test_changing_one_field_of_a_deployment_costs_what_it_declares(path: str, cost: Cost, value: Any) -> None:
    head, _, inner = path.partition(".")
    base = DEPLOYMENT | ({head: WITHOUT_DEFAULT[head]} if inner and head in WITHOUT_DEFAULT else {})
    if path == "num_replicas":
        value = 5
    before, after = desired({"deployments": [base]}), desired({"deployments": [with_value(base, path, value)]})
    actions = [a for a in make_plan(before, after, Observed()).actions if "replicas missing" not in a.reason]
    assert [(a.action, a.deployment, a.cost) for a in actions] == [(ACTION_OF[cost], "a", cost)]
    assert path in actions[0].reason


@pytest.mark.parametrize(("path", "cost", "value"), HTTP_FIELDS, ids=[path for path, _, _ in HTTP_FIELDS])
def test_changing_one_http_option_costs_what_it_declares(path: str, cost: Cost, value: Any) -> None:
    head, _, inner = path.partition(".")
    base: dict[str, Any] = {head: HTTP_WITHOUT_DEFAULT[head]} if inner else {}
    before, after = desired({"http_options": base}), desired({"http_options": with_value(base, path, value)})
    actions = [a for a in make_plan(before, after, Observed()).actions if a.action != "update"]
    assert [(a.action, a.deployment, a.cost) for a in actions] == [(ACTION_OF[cost], None, cost)]
    assert head in actions[0].reason


def test_another_app_dir_rolls_every_deployment() -> None:
    before = desired({"app_dir": ".", "deployments": [DEPLOYMENT]})
    after = desired({"app_dir": "src", "deployments": [DEPLOYMENT]})
    roll = make_plan(before, after, Observed()).actions[0]
    assert (roll.action, roll.cost, roll.reason) == ("roll", Cost.ROLL, "spec changed: app_dir")


def test_autoscaling_that_comes_is_a_scale_and_no_roll() -> None:
    before = desired({"deployments": [DEPLOYMENT]})
    after = desired({"deployments": [DEPLOYMENT | {"autoscaling_config": SCALING}]})
    assert [a.action for a in make_plan(before, after, Observed()).actions] == ["scale"]


def test_a_target_that_moves_the_limit_of_a_replica_rolls_none() -> None:
    scaling = DEPLOYMENT | {"num_replicas": "auto"}
    before = desired({"deployments": [scaling | {"autoscaling_config": SCALING}]})
    after = desired({"deployments": [scaling | {"autoscaling_config": SCALING | {"target_ongoing_requests": 5}}]})
    assert [d.spec["max_ongoing_requests"] for d in (*before.deployments, *after.deployments)] == [3, 8]
    assert [a.action for a in make_plan(before, after, Observed()).actions] == ["scale"]


def test_a_true_that_becomes_a_1_is_a_change() -> None:
    fields = {"init_kwargs": FieldCost(Cost.ROLL, {})}
    found = changes({"init_kwargs": {"a": True, "b": 1}}, {"init_kwargs": {"a": 1, "b": 1}}, fields)
    assert [(c.path, c.before, c.after) for c in found] == [("init_kwargs.a", True, 1)]


def test_every_model_field_declares_a_cost() -> None:
    for model in (StackSpec, DeploymentSpec, HttpOptions):
        assert field_costs(model).keys() == model.model_fields.keys()
