"""Bound applications in a spec: each of their deployments is planned for itself."""

from __future__ import annotations

from typing import Any

import pytest

from serveconf.errors import AuthorError
from serveconf.plan.graph import Inner, expand
from serveconf.spec.models import StackSpec

GRAPH = {
    "shop": [
        {"name": "Prices", "options": {"num_replicas": 2, "max_ongoing_requests": 7}, "calls": []},
        {"name": "Stock", "options": {}, "calls": ["Prices"]},
    ]
}


def spec(**entry: Any) -> StackSpec:
    shop = {"name": "shop", "import_path": "shop:app", "route_prefix": "/", **entry}
    return StackSpec.model_validate({"deployments": [shop, {"name": "other", "import_path": "other:app"}]})


def test_every_deployment_of_an_application_is_there_and_its_ingress_alone_has_a_route() -> None:
    expanded, inner, _ = expand(spec(), GRAPH, {})
    assert [(d.name, d.prefix, d.num_replicas, d.import_path) for d in expanded.deployments] == [
        ("shop", "/", 1, "shop:app"),
        ("other", "/other", 1, "other:app"),
        ("shop.Prices", None, 2, "shop:app"),
        ("shop.Stock", None, 1, "shop:app"),
    ]
    assert inner == {
        "shop.Prices": Inner(entry="shop", bound="Prices"),
        "shop.Stock": Inner(entry="shop", bound="Stock"),
    }


def test_the_file_s_overrides_count_more_than_the_decorator_s_options() -> None:
    expanded, _, _ = expand(spec(overrides={"Prices": {"num_replicas": 3}}), GRAPH, {})
    prices = next(d for d in expanded.deployments if d.name == "shop.Prices")
    assert (prices.num_replicas, prices.max_ongoing_requests) == (3, 7)
    assert expanded.deployments[0].overrides == {}


def test_the_application_is_found_with_its_entry_s_arguments_and_secrets_among_them_stay_hidden() -> None:
    given = spec(factory=True, init_args=[{"key": "secret"}])
    expanded, _, masks = expand(given, GRAPH, {"deployments[0].init_args[0].key": "${KEY}"})
    assert expanded.deployments[2].factory and expanded.deployments[2].init_args == [{"key": "secret"}]
    assert masks == {f"deployments[{index}].init_args[0].key": "${KEY}" for index in (0, 2, 3)}


def test_secrets_in_overrides_stay_hidden_in_the_deployment_that_they_are_for() -> None:
    given = spec(overrides={"Prices": {"user_config": {"api.key": "secret"}}})
    mask = {'deployments[0].overrides.Prices.user_config["api.key"]': "${KEY}"}
    expanded, _, masks = expand(given, GRAPH, mask)
    assert expanded.deployments[2].user_config == {"api.key": "secret"}
    assert masks == mask | {'deployments[2].user_config["api.key"]': "${KEY}"}


@pytest.mark.parametrize(
    ("outer", "own", "together"),
    [
        ({"env_vars": {"A": "1"}}, {}, {"env_vars": {"A": "1"}}),
        ({"env_vars": {"A": "1", "B": "2"}}, {"env_vars": {"B": "3"}}, {"env_vars": {"A": "1", "B": "3"}}),
        ({"pip": ["a"]}, {"pip": ["b"]}, {"pip": ["b"]}),
        ({}, {}, {}),
    ],
)
def test_an_application_s_deployments_have_its_entry_s_runtime_environment_under_their_own(
    outer: dict[str, Any], own: dict[str, Any], together: dict[str, Any]
) -> None:
    given = spec(
        ray_actor_options={"runtime_env": outer, "num_cpus": 2},
        overrides={"Prices": {"ray_actor_options": {"runtime_env": own}}} if own else {},
    )
    path = "ray_actor_options.runtime_env.env_vars.A"
    expanded, _, masks = expand(given, GRAPH, {f"deployments[0].{path}": "${A}"})
    prices = next(d for d in expanded.deployments if d.name == "shop.Prices")
    assert prices.ray_actor_options.runtime_env == together
    assert prices.ray_actor_options.num_cpus == 0.1
    assert set(masks) == {f"deployments[{index}].{path}" for index in (0, 2, 3)}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"overrides": {"Price": {"num_replicas": 2}}}, "there is no deployment 'Price'"),
        ({"overrides": {"Prices": {"route_prefix": "/p"}}}, "route_prefix cannot be said for it"),
        ({"overrides": {"Prices": {"num_replica": 2}}}, "deployment shop.Prices: num_replica"),
        ({"overrides": {"Prices": {"num_replicas": 0}}}, "deployment shop.Prices: num_replicas"),
    ],
)
def test_wrong_overrides_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(AuthorError, match=message):
        expand(spec(**entry), GRAPH, {})


def test_a_deployment_with_the_name_of_one_inside_an_application_is_refused() -> None:
    clashing = StackSpec.model_validate(
        {
            "deployments": [
                {"name": "shop", "import_path": "shop:app"},
                {"name": "shop.Stock", "import_path": "a:b", "route_prefix": "/b"},
            ]
        }
    )
    with pytest.raises(AuthorError, match=r"shop\.Stock is a part of the application shop"):
        expand(clashing, GRAPH, {})
