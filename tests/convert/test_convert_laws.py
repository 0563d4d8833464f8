"""Whatever a Ray Serve config holds, convert gives a spec that validates, or says what is wrong; it never ends with a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from serveconf.cli.convert import convert
from serveconf.spec.load import load_file
from serveconf.spec.problems import SpecInvalid

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(convert)

ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(-1, 9) | st.text("ab ${}:/-", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab$", min_size=1, max_size=2), inner, max_size=2)
    ),
    max_leaves=3,
)
NAMES = st.sampled_from(["Door", "Heavy", "a b", "ä", "", "APIIngress", "-x", "a" * 120])
ENVS = st.fixed_dictionaries(
    {},
    optional={
        "working_dir": st.sampled_from([".", "./code", "s3://b/c.zip"]),
        "env_vars": st.dictionaries(st.sampled_from("AB"), st.sampled_from(["1", "x${Y}", "on"]), max_size=2),
        "pip": st.just(["numpy"]),
    },
)
SCALING = st.fixed_dictionaries(
    {},
    optional={
        "min_replicas": st.integers(0, 3),
        "max_replicas": st.integers(3, 9),
        "initial_replicas": st.none() | st.integers(0, 3),
        "target_ongoing_requests": st.floats(0.5, 9),
        "target_num_ongoing_requests_per_replica": st.integers(1, 9),
        "upscale_delay_s": st.integers(0, 90),
        "smoothing_factor": st.floats(0.5, 2),
        "metrics_interval_s": st.just(10),
    },
)
DEPLOYMENTS = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "num_replicas": st.integers(1, 5) | st.just("auto"),
        "route_prefix": st.sampled_from([None, "/", "/a", "a/b/"]),
        "max_ongoing_requests": st.integers(1, 200),
        "max_queued_requests": st.integers(-1, 9),
        "user_config": ANY,
        "autoscaling_config": SCALING,
        "graceful_shutdown_timeout_s": st.floats(0, 60),
        "health_check_period_s": st.floats(0.1, 60),
        "ray_actor_options": st.fixed_dictionaries(
            {}, optional={"num_cpus": st.floats(0, 4), "num_gpus": st.integers(0, 1), "runtime_env": ENVS}
        ),
        "logging_config": ANY,
        "unknown_to_all": ANY,
    },
)
APPS = st.fixed_dictionaries(
    {"import_path": st.sampled_from(["shop:app", "shop.main.app", "app", "shop.main:build_app", ":app", "a-b:c"])},
    optional={
        "name": NAMES,
        "route_prefix": st.sampled_from([None, "/", "/x", "/x/", "x"]),
        "args": st.none() | st.dictionaries(st.sampled_from("ab"), ANY, max_size=2),
        "runtime_env": ENVS,
        "deployments": st.none() | st.lists(DEPLOYMENTS, max_size=3),
        "external_scaler_enabled": st.booleans(),
    },
)
CONFIGS = st.fixed_dictionaries(
    {"applications": st.lists(APPS, min_size=1, max_size=2)},
    optional={
        "proxy_location": st.sampled_from(["Disabled", "HeadOnly", "EveryNode"]),
        "http_options": st.fixed_dictionaries(
            {}, optional={"host": st.just("0.0.0.0"), "port": st.integers(1, 65535), "root_path": st.just("/r")}
        ),
        "grpc_options": ANY,
        "logging_config": ANY,
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("convert")
    (made / "code").mkdir()
    return made


def said(folder: Path, config: Any) -> tuple[int, str, str]:
    file = folder / "ray.yaml"
    file.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    done = CliRunner().invoke(app, [str(file)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@settings(max_examples=80)
@given(config=CONFIGS)
def test_what_is_a_config_becomes_a_spec_that_says_no_more_than_it_did(folder: Path, config: dict[str, Any]) -> None:
    code, out, err = said(folder, config)
    if code:
        assert out == "" and "error" in err
        return
    (folder / "serve.yaml").write_text(out, encoding="utf-8")
    spec = yaml.safe_load(out)
    assert len(spec["deployments"]) == len(config["applications"])
    known = {"deployments", "http_options", "app_dir", "defaults", "name"}
    assert set(spec) <= known
    try:
        load_file(folder / "serve.yaml", env={"Y": "1"}, unsupported=frozenset())
    except SpecInvalid as invalid:
        found = {problem.code for problem in invalid.problems}
        assert found <= {
            "import_path",
            "duplicate_prefix",
            "duplicate_name",
            "conflict",
            "range",
        }  # as wrong there as here
    assert said(folder, config) == (code, out, err)


@settings(max_examples=60)
@given(
    config=st.dictionaries(
        st.sampled_from(["applications", "http_options", "import_path", "runtime_env", "deployments", "host", "name"]),
        ANY | st.lists(ANY, max_size=2),
        min_size=1,
    )
)
def test_what_is_none_is_said_to_be_none_or_converted_but_never_a_fault(folder: Path, config: dict[str, Any]) -> None:
    code, out, err = said(folder, config)
    assert code in (0, 1)
    assert bool(out) == (code == 0)
    assert code == 0 or err


@settings(max_examples=60)
@given(data=st.binary(max_size=60) | st.text("applications:\n -{}[]&*!|>'\"#", max_size=60).map(str.encode))
def test_any_bytes_are_converted_or_refused(folder: Path, data: bytes) -> None:
    file = folder / "any.yaml"
    file.write_bytes(data)
    done = CliRunner().invoke(app, [str(file)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (0, 1)


def test_what_is_written_validates_where_all_of_it_has_an_equal(folder: Path) -> None:
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": [
            {
                "name": "shop",
                "import_path": "shop.main:app",
                "route_prefix": "/shop",
                "deployments": [{"name": "Door", "num_replicas": 2, "user_config": {"price": "$5", "what": "${HOME}"}}],
            }
        ],
    }
    code, out, _ = said(folder, config)
    assert code == 0
    (folder / "serve.yaml").write_text(out, encoding="utf-8")
    loaded = load_file(folder / "serve.yaml", env={}, unsupported=frozenset())
    (one,) = loaded.spec.deployments
    assert (one.prefix, one.num_replicas, one.user_config) == ("/shop", 2, {"price": "$5", "what": "${HOME}"})
    assert json.dumps(loaded.as_said())
