"""``serveconf convert`` from outside: what people have goes in, a spec that validates and notes that are true come out."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from serveconf.cli.convert import convert
from serveconf.spec.load import load_file

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(convert)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(textwrap.dedent(text), encoding="utf-8")


def call(text: str) -> Result:
    write("ray.yaml", text)
    result = CliRunner().invoke(app, ["ray.yaml"])
    assert "Traceback" not in result.stderr
    return result


def converted(text: str) -> tuple[Any, list[str]]:
    """The spec, which is valid, and the notes."""
    result = call(text)
    assert result.exit_code == 0, result.stderr
    write("spec.yaml", result.stdout)
    load_file(Path("spec.yaml"), env={}, unsupported=frozenset())
    return yaml.safe_load(result.stdout), [line[5:] for line in result.stdout.splitlines() if line.startswith("#  - ")]


def only(text: str) -> dict[str, Any]:
    """The one deployment of the spec."""
    spec, _ = converted(text)
    (deployment,) = spec["deployments"]
    return dict(deployment)


MANY_THINGS = """\
proxy_location: HeadOnly
http_options: {host: 0.0.0.0, port: 9000, keep_alive_timeout_s: 30, num_cpus: 1}
grpc_options: {port: 9001}
logging_config: {log_level: INFO}
applications:
  - name: text
    route_prefix: /text
    import_path: text.app:build
    runtime_env: {working_dir: ./code, env_vars: {A: "1"}}
    args: {price: $5, version: "1e3", on: on, day: 2024-01-01}
    deployments:
      - name: Translator
        num_replicas: auto
        max_concurrent_queries: 7
        user_config: {language: french}
        autoscaling_config: {max_replicas: 4, target_num_ongoing_requests_per_replica: 3, smoothing_factor: 2}
        ray_actor_options: {num_cpus: 0.2, num_gpus: 1, runtime_env: {pip: [numpy]}}
        placement_group_bundles: [{CPU: 1, GPU: 1}, {GPU: 1}]
        placement_group_strategy: STRICT_PACK
        placement_group_bundle_label_selector: [{zone: a}]
  - import_path: other:app
    deployments:
    - {name: Other, num_replicas: 2, max_ongoing_requests: 3, ray_actor_options: {num_cpus: 1}, max_replicas_per_node: 1}
"""


def test_what_has_an_equal_is_taken_over() -> None:
    spec, _ = converted(MANY_THINGS)
    assert spec == {
        "http_options": {"location": "HeadOnly", "host": "0.0.0.0", "port": 9000, "keep_alive_timeout_s": 30},
        "defaults": {"logging": {"level": "info"}},
        "deployments": [
            {
                "name": "text",
                "import_path": "text.app:build",
                "route_prefix": "/text",
                "factory": True,
                "init_args": [{"price": "$$5", "version": "1e3", "True": True, "day": "2024-01-01"}],
                "max_ongoing_requests": 7,
                "user_config": {"language": "french"},
                "autoscaling_config": {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 3},
                "ray_actor_options": {
                    "num_cpus": 0.2,
                    "num_gpus": 1,
                    "runtime_env": {"env_vars": {"A": "1"}, "pip": ["numpy"]},
                },
                "placement_group_bundles": [{"CPU": 1, "GPU": 1}, {"GPU": 1}],
                "placement_group_strategy": "STRICT_PACK",
            },
            {
                "name": "Other",
                "import_path": "other:app",
                "route_prefix": "/",
                "num_replicas": 2,
                "max_ongoing_requests": 3,
                "ray_actor_options": {"num_cpus": 1},
                "max_replicas_per_node": 1,
            },
        ],
    }


def test_what_has_no_equal_is_noted() -> None:
    _, notes = converted(MANY_THINGS)
    told = {note.split(": ")[0] for note in notes}
    assert told >= {
        "http_options.num_cpus",
        "grpc_options",
        "applications[0].deployments[0].autoscaling_config.smoothing_factor",
        "applications[0].deployments[0].placement_group_bundle_label_selector",
        "applications[0].runtime_env.working_dir",
    }
    assert any("max_replicas_per_node: counts those that a change replaces" in note for note in notes)
    assert not any("max_ongoing_requests" in note or "num_cpus: is" in note for note in notes if "ions[0]" in note)


def test_options_without_applications_are_a_spec_to_begin_with() -> None:
    spec, notes = converted(
        "proxy_location: HeadOnly\nhttp_options: {host: 0.0.0.0, port: 8005}\ngrpc_options: {port: 1}\n"
    )
    assert spec == {"http_options": {"location": "HeadOnly", "host": "0.0.0.0", "port": 8005}, "deployments": []}
    assert "it names no applications yet" in notes


@pytest.mark.parametrize("place", ["spec:\n", "spec:\n  ray:\n", "spec:\n  a:\n    - b:\n"])
def test_manifests_of_other_controllers_hold_the_same_text(place: str) -> None:
    indent = " " * (len(place.splitlines()[-1]) - len(place.splitlines()[-1].lstrip(" -")) + 2)
    text = "applications:\n- {name: a, import_path: 'a:app', route_prefix: /}\n".replace("\n", f"\n{indent}  ")
    spec, _ = converted(
        f"apiVersion: x/v1\nkind: Other\nmetadata: {{name: n}}\n{place}{indent}serveConfigV2: |\n{indent}  {text}\n"
    )
    assert (spec["name"], [one["import_path"] for one in spec["deployments"]]) == ("n", ["a:app"])


@pytest.mark.parametrize(
    ("config", "logging", "noted"),
    [
        ("{log_level: DEBUG, encoding: JSON}", {"level": "debug", "format": "json"}, set()),
        ("{log_level: 30}", {"level": "warning"}, set()),
        ("{encoding: TEXT, logs_dir: /var/log}", {"format": "text"}, {"logs_dir"}),
        ("{log_level: 7, enable_access_log: false}", None, {"log_level", "enable_access_log"}),
    ],
)
def test_logging_config_of_a_deployment_is_its_logging(
    config: str, logging: dict[str, str] | None, noted: set[str]
) -> None:
    text = f"applications:\n  - name: a\n    import_path: a:app\n    deployments: [{{name: A, logging_config: {config}}}]\n"
    spec, notes = converted(text)
    assert spec["deployments"][0].get("logging") == logging
    assert {key for key in noted if any(f"logging_config.{key}: has no equal" in note for note in notes)} == noted


@pytest.mark.parametrize(
    ("config", "affinity", "noted"),
    [
        ("{request_router_class: ray.serve.experimental.consistent_hash_router.ConsistentHashRouter}", {}, set()),
        (
            "{request_router_class: 'a:ConsistentHashRouter', request_router_kwargs: {n: 1}}",
            {},
            {"request_router_kwargs"},
        ),
        ("{request_router_class: 'a:Mine'}", None, {"request_router_class"}),
    ],
)
def test_a_router_that_hashes_sessions_is_session_affinity(config: str, affinity: Any, noted: set[str]) -> None:
    text = (
        "applications:\n  - name: a\n    import_path: a:app\n"
        f"    deployments: [{{name: A, request_router_config: {config}}}]\n"
    )
    spec, notes = converted(text)
    assert spec["deployments"][0].get("session_affinity") == affinity
    assert {note.split(":")[0].rpartition(".")[2] for note in notes if "request_router_config" in note} == noted


RAY_SERVICE = """\
apiVersion: ray.io/v1
kind: RayService
metadata:
  name: bakery
spec:
  serviceUnhealthySecondThreshold: 900
  serveConfigV2: |
    applications:
      - name: bakery
        import_path: bakery.shop:app
        route_prefix: /bakery
        deployments:
          - name: Oven
            num_replicas: 2
  rayClusterConfig:
    rayVersion: "2.9.0"
"""


def test_a_rayservice_manifest_holds_a_config_as_text() -> None:
    spec, notes = converted(RAY_SERVICE)
    assert spec["name"] == "bakery"
    assert spec["deployments"][0]["import_path"] == "bakery.shop:app"
    assert spec["deployments"][0]["num_replicas"] == 2
    assert any(note.startswith("spec.rayClusterConfig: ") for note in notes)
    assert any(note.startswith("spec.serviceUnhealthySecondThreshold: ") for note in notes)


def test_a_manifest_is_found_among_others_in_one_file() -> None:
    other = "apiVersion: v1\nkind: ConfigMap\ndata: {mode: !!str 0755, a: 017}\n---\n"
    spec, _ = converted(f"{other}{RAY_SERVICE}---\napiVersion: v1\nkind: Service\n")
    assert spec["deployments"][0]["import_path"] == "bakery.shop:app"


def test_a_second_rayservice_of_the_file_is_noted() -> None:
    _, notes = converted(f"{RAY_SERVICE}---\n{RAY_SERVICE.replace('name: bakery', 'name: second')}")
    assert "second stands in the same file; convert it by itself" in notes


def test_the_first_api_of_kuberay_wrote_camel_case_and_yaml_in_texts() -> None:
    spec, _ = converted("""\
        apiVersion: ray.io/v1alpha1
        kind: RayService
        metadata: {name: fruits}
        spec:
          serveConfig:
            importPath: fruit.deployment_graph
            runtimeEnv: |
              env_vars: {MODE: fast}
            deployments:
              - name: Mango
                numReplicas: 3
                routePrefix: /mango
                userConfig: |
                  price: 4
                rayActorOptions: {numCpus: 0.5}
              - name: Pear
                numReplicas: 9
        """)
    assert spec["deployments"] == [
        {
            "name": "Mango",
            "import_path": "fruit:deployment_graph",
            "route_prefix": "/mango",
            "user_config": {"price": 4},
            "num_replicas": 3,
            "ray_actor_options": {"num_cpus": 0.5, "runtime_env": {"env_vars": {"MODE": "fast"}}},
            "overrides": {
                "Pear": {"num_replicas": 9, "ray_actor_options": {"runtime_env": {"env_vars": {"MODE": "fast"}}}}
            },
        }
    ]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("bakery.graph", "bakery:graph"),
        ("a.b.c.app", "a.b.c:app"),
        ("main:app", "main:app"),
        ("samples.ray-serve.dag.node", "samples.ray-serve.dag:node"),
    ],
)
def test_a_dotted_import_path_names_its_attribute(given: str, written: str) -> None:
    assert only(f"applications: [{{name: a, import_path: '{given}'}}]")["import_path"] == written


@pytest.mark.parametrize(
    "tls",
    [
        {"ssl_certfile": "tls/cert.pem", "ssl_keyfile": "tls/key.pem"},
        {"ssl_certfile": "/etc/c.pem", "ssl_keyfile": "/etc/k.pem", "ssl_ca_certs": "/etc/ca.pem"},
    ],
)
def test_tls_has_an_equal(tls: dict[str, str]) -> None:
    spec, notes = converted(
        yaml.safe_dump({"http_options": {"port": 8443, **tls}, "applications": [{"import_path": "m:a"}]})
    )
    assert tls.items() <= spec["http_options"].items()
    assert not any("ssl_" in note for note in notes)


# Which deployment answers HTTP

HEAVY = "{name: Heavy, num_replicas: 7, user_config: {size: 1}, ray_actor_options: {num_cpus: 111}}"
DOOR = "{name: Door, num_replicas: 2, user_config: {color: red}}"
CODE = {
    "bound at the module's level": """\
        from ray import serve

        @serve.deployment
        class Heavy: ...

        @serve.deployment(max_ongoing_requests=9)
        class Door: ...

        app = Door.bind(Heavy.bind())
        """,
    "named by an option": """\
        from ray.serve import deployment

        @deployment
        class Heavy: ...

        @deployment(name="Door")
        class Entry: ...

        heavy = Heavy.options(name="Heavy").bind()
        app = Entry.options(num_replicas=1).bind(heavy)
        """,
    "made of a plain class": """\
        from ray import serve

        class Door: ...
        class Heavy: ...

        door = serve.deployment(Door)
        app = door.bind(serve.deployment(num_replicas=2)(Heavy).bind())
        """,
    "imported from elsewhere": """\
        from ray import serve
        from shop.parts import Entry
        from shop import heavy

        app = Entry.bind(heavy.Heavy.bind())
        """,
}
PARTS = """\
    from ray import serve

    @serve.deployment(name="Door", max_ongoing_requests=3)
    class Entry: ...
    """


@pytest.mark.parametrize("order", [f"[{HEAVY}, {DOOR}]", f"[{DOOR}, {HEAVY}]"])
@pytest.mark.parametrize("code", CODE.values(), ids=CODE)
def test_the_deployment_that_answers_http_is_read_from_the_code(code: str, order: str) -> None:
    write("shop/__init__.py", "")
    write("shop/main.py", code)
    write("shop/parts.py", PARTS)
    spec = only(f"applications: [{{name: shop, import_path: 'shop.main:app', deployments: {order}}}]")
    assert spec["num_replicas"] == 2
    assert spec["user_config"] == {"color": "red"}
    assert spec.get("ray_actor_options") is None


def test_a_builder_is_told_from_the_code() -> None:
    write(
        "flow.py",
        """\
        from ray import serve

        @serve.deployment
        class Heavy: ...

        @serve.deployment
        class Door: ...

        def assemble(args):
            heavy = Heavy.bind()
            return Door.bind(heavy)
        """,
    )
    spec = only(f"applications: [{{import_path: 'flow:assemble', deployments: [{HEAVY}, {DOOR}]}}]")
    assert (spec["factory"], spec["init_args"], spec["num_replicas"]) == (True, [{}], 2)


def test_code_in_the_working_dir_is_read_and_becomes_app_dir() -> None:
    write("code/flow.py", textwrap.dedent(CODE["bound at the module's level"]))
    spec, notes = converted(
        f"applications: [{{import_path: flow.app, runtime_env: {{working_dir: ./code}}, deployments: [{HEAVY}, {DOOR}]}}]"
    )
    assert spec["app_dir"] == "./code"
    assert spec["deployments"][0]["num_replicas"] == 2
    assert not any("max_ongoing_requests" in note for note in notes if "[1]" in note)  # the code sets it


def test_options_of_a_deployment_that_only_others_call_are_never_the_entrys() -> None:
    write("flow.py", textwrap.dedent(CODE["bound at the module's level"]))
    spec = only(f"applications: [{{import_path: 'flow:app', deployments: [{HEAVY}]}}]")
    assert not {"num_replicas", "user_config", "ray_actor_options"} & set(spec)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["Heavy", "APIIngress"], "APIIngress"),
        (["APIIngress", "Heavy"], "APIIngress"),
        (["DAGDriver", "Router", "Adder"], "DAGDriver"),
        (["Mango", "Pear", "FruitMarket"], "FruitMarket"),
    ],
)
def test_without_the_code_a_guess_is_called_one(names: list[str], taken: str) -> None:
    listed = [{"name": name, "num_replicas": number} for number, name in enumerate(names, 1)]
    spec, notes = converted(yaml.safe_dump({"applications": [{"import_path": "far.away", "deployments": listed}]}))
    assert spec["deployments"][0]["num_replicas"] == names.index(taken) + 1
    assert any(f"{taken} was taken" in note for note in notes)


# Old forms


def test_one_application_with_the_route_on_its_deployment() -> None:
    spec, notes = converted("""\
        import_path: fruit.graph
        host: 0.0.0.0
        port: 8010
        runtime_env: {env_vars: {A: 1, B: true}}
        deployments:
          - {name: Stand, num_replicas: 4, route_prefix: null, user_config: null, autoscaling_config: null}
          - {name: Market, num_replicas: 2, route_prefix: /market, graceful_shutdown_wait_loop_s: 2.0}
          - {name: Pear, num_replicas: 5, route_prefix: null}
        """)
    assert spec["http_options"] == {"location": "EveryNode", "host": "0.0.0.0", "port": 8010}
    assert spec["deployments"][0] == {
        "name": "Market",
        "import_path": "fruit:graph",
        "route_prefix": "/market",
        "num_replicas": 2,
        "ray_actor_options": {"runtime_env": {"env_vars": {"A": "1", "B": "true"}}},
        "overrides": {
            "Stand": {"num_replicas": 4, "ray_actor_options": {"runtime_env": {"env_vars": {"A": "1", "B": "true"}}}},
            "Pear": {"num_replicas": 5, "ray_actor_options": {"runtime_env": {"env_vars": {"A": "1", "B": "true"}}}},
        },
    }
    assert not any("wait_loop" in note or "host" in note for note in notes)


def test_one_application_without_any_deployment() -> None:
    Path("code").mkdir()
    spec, notes = converted("import_path: app:app\nhost: 0.0.0.0\nport: 8010\nruntime_env: {working_dir: code}\n")
    assert spec["app_dir"] == "code"
    assert spec["deployments"][0]["name"] == "default"
    assert any("num_cpus" in note for note in notes)


def test_ray_serve_1_listed_deployments_by_dotted_paths() -> None:
    spec, notes = converted("""\
        deployments:
          - {name: shallow, import_path: pkg.mod.Shallow, init_args: [1], route_prefix: /s, max_concurrent_queries: null}
          - {name: one, import_path: pkg.test.one, num_replicas: 2}
        """)
    assert [(one["import_path"], one["route_prefix"]) for one in spec["deployments"]] == [
        ("pkg.mod:Shallow", "/s"),
        ("pkg.test:one", "/one"),
    ]
    assert spec["deployments"][0]["init_args"] == [1]
    assert not any("bound" in note for note in notes)


# What is no config


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no Ray Serve config"),
        ("a: 1\n", "no Ray Serve config"),
        ("[1]\n", "no Ray Serve config"),
        ("applications: [\n", "ray.yaml:"),
        ("- &a [*a]\n", "ray.yaml:"),
        ("import_path: !!python/none x\n", "ray.yaml:"),
        ("deployments: [{name: a, import_path: 'm:a'}]\n", "a serveconf spec already"),
        ("kind: RayService\nspec: {}\n", "no applications under spec.serveConfigV2"),
        ("kind: RayService\nspec:\n  serveConfigV2: |\n    applications: [\n", "spec.serveConfigV2, line 2"),
    ],
)
def test_something_else_is_a_problem(text: str, told: str) -> None:
    result = call(text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr


def test_names_that_are_none_here_are_mended_and_said() -> None:
    spec, notes = converted("applications: [{name: 'my app!', import_path: 'm:a'}]")
    assert spec["deployments"][0]["name"] == "my-app"
    assert any("'my app!'" in note for note in notes)
