from __future__ import annotations

import dataclasses
import pickle

import pytest

from serveconf.errors import AuthorError
from serveconf.ingress import deployment as room
from serveconf.ingress.app import build
from serveconf.ingress.deployment import Deployment, DeploymentOptions, deployment, deployment_options, install_deployer
from serveconf.spec.models import DeploymentSpec


def func(request):
    return "f"


@deployment(num_replicas=2, init_args=(1,))
class Model:
    def __init__(self, a):
        self.a = a

    def __call__(self):
        return self.a


at_module_level = deployment(func)


def test_a_bare_decorator_takes_the_name_of_what_it_decorates():
    plain = deployment(func)
    assert (plain.name, plain.route_prefix, plain.func_or_class) == ("func", "/func", func)
    assert (Model.name, Model.route_prefix) == ("Model", "/Model")


def test_options_are_the_keys_of_the_yaml():
    assert set(DeploymentOptions.__annotations__) == set(DeploymentSpec.model_fields) - {
        "import_path",
        "factory",
        "overrides",
    }


def test_a_misspelled_option_is_a_type_error_that_says_what_was_meant():
    with pytest.raises(TypeError, match=r"unknown option 'num_replica'; did you mean 'num_replicas'\?"):
        deployment(num_replica=2)
    with pytest.raises(TypeError, match="unknown option 'import_path'"):
        Model.options(import_path="a:b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_replicas": 0}, "num_replicas"),
        ({"num_replicas": "2"}, "num_replicas"),
        ({"route_prefix": "no-slash"}, "must start with '/'"),
        ({"ray_actor_options": {"num_cpu": 1}}, r"ray_actor_options\.num_cpu"),
        ({"name": "no blanks"}, "name"),
    ],
)
def test_a_wrong_value_is_told_with_its_place_where_it_is_written(options, message):
    with pytest.raises(AuthorError, match=message):
        deployment(**options)(func)
    with pytest.raises(AuthorError, match=message):
        deployment(func).options(**options)


def test_options_leave_the_original_as_it_is():
    changed = Model.options(name="other", num_replicas=3, route_prefix=None)
    assert (changed.name, changed.spec().num_replicas, changed.route_prefix) == ("other", 3, None)
    assert changed.spec().init_args == [1]
    assert (Model.name, Model.spec().num_replicas, Model.route_prefix) == ("Model", 2, "/Model")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Model.name = "x"


def test_options_as_json_hold_what_was_said_and_no_more():
    made = deployment(name="n", route_prefix=None, user_config={"a": 1}, ray_actor_options={"num_cpus": 1})(func)
    assert deployment_options(made) == {
        "route_prefix": None,
        "user_config": {"a": 1},
        "ray_actor_options": {"num_cpus": 1.0},
    }
    assert deployment_options(func) == {}


def test_init_args_that_are_no_plain_data_cannot_be_written_as_json():
    with pytest.raises(AuthorError, match="cannot be written as JSON"):
        deployment_options(deployment(init_args=[object()])(func))


def test_a_deployment_is_served_as_what_it_wraps(client):
    served = build(Model, init_args=[5])
    assert (served.kind, client(served.app).get("/").json()) == ("deployment", 5)


def test_what_has_no_name_must_be_given_one():
    class Callable:
        def __call__(self): ...

    with pytest.raises(TypeError, match="give name="):
        deployment(Callable())
    assert deployment(name="c")(Callable()).name == "c"
    with pytest.raises(TypeError, match=r"use \.options"):
        deployment(Model)


def test_a_deployment_travels_by_pickle():
    arrived = pickle.loads(pickle.dumps(at_module_level.options(num_replicas=4)))
    assert (arrived.func_or_class, arrived.spec().num_replicas) == (func, 4)


def test_deploy_and_delete_go_to_whoever_was_installed(monkeypatch):
    calls: list[tuple[str, Deployment]] = []

    class Fake:
        def deploy(self, deployment: Deployment) -> None:
            calls.append(("deploy", deployment))

        def delete(self, deployment: Deployment) -> None:
            calls.append(("delete", deployment))

    monkeypatch.setattr(room, "_deployer", None)
    install_deployer(Fake())
    Model.deploy()
    Model.deploy(7, b=8)
    Model.delete()
    assert [kind for kind, _ in calls] == ["deploy", "deploy", "delete"]
    assert calls[0][1] is Model
    assert (calls[1][1].spec().init_args, calls[1][1].spec().init_kwargs) == ([7], {"b": 8})
