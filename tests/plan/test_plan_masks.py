"""Values that came from variables are shown as the variables, whatever the keys above them are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serveconf.cli.plan_view import render_plan
from serveconf.plan.desired import make_desired
from serveconf.plan.diff import make_plan
from serveconf.plan.fields import shown
from serveconf.plan.state import DesiredStack, Observed
from serveconf.reconcile.result import masked
from serveconf.spec.load import Loaded, load_file
from serveconf.spec.models import as_wire

ODD_KEYS = ["plain", "api.key", "api key", "a/b", "a:b", "a[0]", 'a"b', "ключ", "", "a\\nb", "0", "-", "a.b[0].c"]
SPEC = """
name: shop
deployments:
  - name: cart
    import_path: cart:app
    init_args: [{%(key)s: ["x", "${SECRET}"]}]
    init_kwargs: {%(key)s: "${SECRET}", "outer.one": {%(key)s: "before ${SECRET} after"}}
    user_config: {deep: [{%(key)s: "${SECRET}"}]}
    middlewares: [{import_path: "m:M", kwargs: {%(key)s: "${SECRET}"}}]
http_options:
  middlewares: [{import_path: "m:M", kwargs: {%(key)s: "${SECRET}"}}]
"""


def load(folder: Path, key: str, secret: str) -> Loaded:
    file = folder / "serve.yaml"
    file.write_text(SPEC % {"key": json.dumps(key, ensure_ascii=False)})
    return load_file(file, env={"SECRET": secret})


def desired(loaded: Loaded) -> DesiredStack:
    return make_desired(loaded.spec, revision=1, code="c", files_for=lambda name: {}, masks=loaded.masks)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_secret_below_any_key_is_in_no_plan(tmp_path: Path, key: str) -> None:
    one, two = (desired(load(tmp_path, key, secret)) for secret in ("s3cret-one", "s3cret-two"))
    plans = [make_plan(None, one, Observed()), make_plan(one, two, Observed())]
    texts = [json.dumps(plan.as_json()) for plan in plans]
    assert all("s3cret" not in text and "${SECRET}" in text for text in texts)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_secret_below_any_key_is_in_no_record(tmp_path: Path, key: str) -> None:
    loaded = load(tmp_path, key, "s3cret")
    text = json.dumps(masked(as_wire(loaded.spec), dict(loaded.masks)))
    assert "s3cret" not in text and text.count("${SECRET}") == 6


def test_a_mask_says_nothing_of_other_values() -> None:
    value = {"a.b": "one", "a": {"b": "two"}}
    assert shown(value, "kwargs", {'kwargs["a.b"]': "${X}"}) == {"a.b": "${X}", "a": {"b": "two"}}
    assert shown(value, "kwargs", {"kwargs.a.b": "${X}"}) == {"a.b": "one", "a": {"b": "${X}"}}


def test_a_secret_that_was_rotated_is_a_change_that_shows_the_variable_alone(tmp_path: Path) -> None:
    one, two = (desired(load(tmp_path, "key", secret)) for secret in ("s3cret-one", "s3cret-two"))
    plan = make_plan(one, two, Observed()).as_json()
    assert [(action["deployment"], action["action"]) for action in plan["actions"]] == [
        (None, "route"),
        ("cart", "roll"),
        ("cart", "reconfigure"),
        ("cart", "route"),
    ]
    text = render_plan(plan)
    assert 'init_kwargs.key: "${SECRET}", with another value of a variable' in text
    assert "s3cret" not in text
    assert make_plan(two, two, Observed()).as_json()["actions"] == make_plan(one, one, Observed()).as_json()["actions"]
