"""Properties of plans, for random stacks."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from serveconf.plan.actions import Plan
from serveconf.plan.desired import make_desired
from serveconf.plan.diff import make_plan
from serveconf.plan.state import DesiredStack, Observed, ReplicaPhase, ReplicaState
from serveconf.spec.models import StackSpec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inside, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def deployments(draw: st.DrawFn) -> dict[str, Any]:
    optional = {
        "num_replicas": st.integers(1, 4),
        "init_kwargs": st.dictionaries(st.text("ab", max_size=2), JSON, max_size=2),
        "user_config": JSON,
        "request_timeout_s": st.none() | st.integers(1, 3),
        "middlewares": st.lists(st.just({"import_path": "m:M"}), max_size=2),
        "ray_actor_options": st.fixed_dictionaries({}, optional={"num_cpus": st.sampled_from([0, 0.1, 1])}),
        "rollout": st.fixed_dictionaries({}, optional={"bake_s": st.integers(0, 2)}),
    }
    chosen = draw(st.fixed_dictionaries({"name": NAMES, "import_path": st.just("m:app")}, optional=optional))
    return {str(key): value for key, value in chosen.items()}


SPECS = st.fixed_dictionaries(
    {"deployments": st.lists(deployments(), unique_by=lambda d: str(d["name"]), max_size=4)},
    optional={"http_options": st.fixed_dictionaries({}, optional={"port": st.sampled_from([8000, 9000])})},
)
FILES = st.dictionaries(NAMES, st.dictionaries(st.sampled_from(["m.py", "x.txt"]), st.sampled_from("12")))


def desired(spec: dict[str, Any], files: dict[str, dict[str, str]], revision: int = 1) -> DesiredStack:
    made = StackSpec.model_validate_json(json.dumps(spec))
    return make_desired(made, revision=revision, code="c", files_for=lambda name: files.get(name, {}))


def settled(stack: DesiredStack) -> Observed:
    """What a cluster looks like when the stack has been applied."""
    return Observed(
        replicas=tuple(
            ReplicaState(
                id=f"{d.name}-{n}",
                stack=stack.name,
                deployment=d.name,
                version=d.version,
                config_hash=d.config_hash,
                phase=ReplicaPhase.READY,
            )
            for d in stack.deployments
            for n in range(d.num_replicas)
        )
    )


@given(SPECS, FILES)
def test_a_plan_after_the_apply_is_empty(spec: dict[str, Any], files: dict[str, dict[str, str]]) -> None:
    stack = desired(spec, files)
    stored = msgspec.json.decode(msgspec.json.encode(stack), type=DesiredStack)
    assert not make_plan(stored, desired(spec, files, revision=2), settled(stack)).changed


@given(SPECS, FILES, SPECS, FILES, st.randoms())
def test_the_order_in_the_file_does_not_matter(
    before: dict[str, Any],
    before_files: dict[str, dict[str, str]],
    after: dict[str, Any],
    after_files: dict[str, dict[str, str]],
    dice: random.Random,
) -> None:
    start = desired(before, before_files)
    plan = make_plan(start, desired(after, after_files), settled(start))
    dice.shuffle(after["deployments"])
    after["deployments"] = [dict(reversed(d.items())) for d in after["deployments"]]
    assert make_plan(start, desired(after, after_files), settled(start)) == plan


@given(SPECS, FILES, SPECS, FILES)
def test_a_plan_is_empty_only_where_nothing_differs(
    before: dict[str, Any],
    before_files: dict[str, dict[str, str]],
    after: dict[str, Any],
    after_files: dict[str, dict[str, str]],
) -> None:
    one, other = desired(before, before_files), desired(after, after_files)
    plan = make_plan(one, other, settled(one))
    versions = [
        {d.name: (d.version, d.config_hash, d.prefix, d.num_replicas) for d in s.deployments} for s in (one, other)
    ]
    if versions[0] != versions[1]:
        assert plan.changed
    if not plan.changed:
        assert settled(one) == settled(other)


@given(SPECS, FILES, SPECS, FILES)
def test_removals_come_last_and_a_plan_survives_its_file(
    before: dict[str, Any],
    before_files: dict[str, dict[str, str]],
    after: dict[str, Any],
    after_files: dict[str, dict[str, str]],
) -> None:
    start = desired(before, before_files)
    plan = make_plan(start, desired(after, after_files), settled(start))
    removes = [action.action == "remove" for action in plan.actions]
    assert removes == sorted(removes)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
