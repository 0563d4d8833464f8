"""A canary's way through its steps: forward, held, taken back, and on after the controller's death."""

from __future__ import annotations

import json
import random
from typing import Any

from serveconf.figures import Side
from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.canary import CanaryPlan, NextStep, Stay, TakeBack, Verdict, Watch, canary_of, replicas_for
from serveconf.reconcile.front import merge_fronts
from serveconf.reconcile.generation import Canary, canary_route
from serveconf.reconcile.records import CanaryState
from serveconf.routing import Route, as_match
from serveconf.spec.models import StackSpec

CANARY = {"steps": [5, 25, 50], "step_s": 30}


def stack(*deployments: dict[str, Any], code: str = "1") -> DesiredStack:
    spec = StackSpec.model_validate_json(json.dumps({"name": "s", "deployments": deployments}))
    return make_desired(spec, revision=1, code=code, files_for=lambda name: {"app.py": code})


def deployment(name: str = "a", canary: dict[str, Any] | None = CANARY, **fields: Any) -> dict[str, Any]:
    return {"name": name, "import_path": "app:app", "rollout": {"canary": canary}, **fields}


def plan(*deployments: dict[str, Any]) -> CanaryPlan:
    found = canary_of(stack(*deployments), stack(*deployments, code="2"))
    assert found is not None
    return found


class Proxies:
    """Two proxies that count: each look they get so many requests, of which the sides fail as they do."""

    def __init__(self, of: CanaryPlan, errors: tuple[float, float]) -> None:
        self.plan, self.errors = of, errors
        self.random = random.Random(4)
        self.counted = {(proxy, 1): {} for proxy in ("p", "q")}
        self.given = [0, 0]

    def serve(self, share: float, requests: int) -> None:
        for process, counted in self.counted.items():
            counted = self.counted[process] = dict(counted)
            for side, part in enumerate((100 - share, share)):
                given = round(requests / 2 * part / 100 + self.random.random() - 0.5)
                failed = sum(self.random.random() < self.errors[side] for _ in range(given))
                key = f"s/a@{self.plan.versions['a'][side]}"
                before = counted.get(key, Side())
                counted[key] = Side(given=before.given + given, failed=before.failed + failed)
                self.given[side] += given


def lead(of: CanaryPlan, errors: tuple[float, float], requests_per_s: float = 100.0) -> tuple[Verdict, float, Proxies]:
    """Look twice a second until it ends: how, after how many seconds, and what was served."""
    proxies, watch = Proxies(of, errors), Watch(of)
    now, state = 1000.0, CanaryState(until=1000 + of.step_s)
    verdict: Verdict = Stay(message="")
    while now < 1000 + 600:
        verdict = watch.look(state, dict(proxies.counted), is_over=state.until is not None and now >= state.until)
        if isinstance(verdict, TakeBack):
            break
        if isinstance(verdict, NextStep):
            state = CanaryState(step=verdict.step, until=now + of.step_s)
            if state.step >= of.steps:
                break
        proxies.serve(of.share("a", state.step), round(requests_per_s / 2))
        now += 0.5
    return verdict, now - 1000, proxies


def test_a_version_as_good_as_the_old_one_goes_through_all_steps_in_their_time() -> None:
    verdict, seconds, _ = lead(plan(deployment()), (0.01, 0.01))
    assert verdict == NextStep(step=3)
    assert seconds == 90


def test_a_version_with_twenty_percent_errors_is_taken_back_within_seconds() -> None:
    canary = plan(deployment(canary={"steps": [25, 50]}))
    verdict, seconds, proxies = lead(canary, (0.0, 0.2))
    assert isinstance(verdict, TakeBack)
    assert seconds <= 2
    assert verdict.failure.code == "canary"
    assert verdict.failure.deployment == "a"
    assert "of the old one 0 of" in verdict.failure.message
    assert proxies.given[1] <= 60


def test_a_database_that_is_down_for_both_takes_nobody_back() -> None:
    verdict, _, _ = lead(plan(deployment()), (0.6, 0.6))
    assert isinstance(verdict, NextStep)


def test_a_step_waits_until_enough_have_asked() -> None:
    canary = plan(deployment(canary={"steps": [5], "step_s": 1, "min_requests": 20}))
    verdict, seconds, proxies = lead(canary, (0.0, 0.0), requests_per_s=40)
    assert isinstance(verdict, NextStep)
    assert seconds > 5
    assert proxies.given[1] >= 20


def test_another_controller_goes_on_with_the_step() -> None:
    canary = plan(deployment())
    proxies = Proxies(canary, (0.0, 1.0))
    state = CanaryState(step=1, until=1010.0)
    for _ in range(10):
        proxies.serve(25, 50)
    fresh = Watch(canary)
    assert fresh.look(state, dict(proxies.counted), is_over=False) == Stay(message="step 2 of 3: a 25 %")
    proxies.serve(25, 50)
    assert isinstance(fresh.look(state, dict(proxies.counted), is_over=False), TakeBack)


def test_a_proxy_that_begins_anew_is_counted_from_nothing() -> None:
    canary = plan(deployment())
    watch, key = Watch(canary), f"s/a@{canary.versions['a'][1]}"
    state = CanaryState(step=0, until=1010.0)
    watch.look(state, {("p", 1): {key: Side(given=100)}}, is_over=False)
    watch.look(state, {("p", 2): {key: Side(given=3)}}, is_over=False)
    assert watch.evidence["a"].new.given == 3


def test_a_proxy_that_did_not_answer_once_is_read_on_from_where_it_was() -> None:
    canary = plan(deployment())
    watch, key = Watch(canary), f"s/a@{canary.versions['a'][1]}"
    state = CanaryState(step=0, until=1010.0)
    watch.look(state, {("p", 1): {key: Side(given=100)}}, is_over=False)
    watch.look(state, {}, is_over=False)
    watch.look(state, {("p", 1): {key: Side(given=103)}}, is_over=False)
    assert watch.evidence["a"].new.given == 3


def test_only_another_version_of_what_serves_requests_is_tried() -> None:
    one = stack(deployment())
    assert canary_of(None, one) is None
    assert canary_of(one, one) is None
    assert canary_of(stack(deployment(canary=None)), stack(deployment(canary=None), code="2")) is None
    hidden = deployment(route_prefix=None)
    assert canary_of(stack(hidden), stack(hidden, code="2")) is None
    assert canary_of(one, stack(deployment(), deployment("b"), code="2")).rules.keys() == {"a"}


def test_canaries_of_one_stack_go_together() -> None:
    both = plan(deployment(), deployment("b", canary={"steps": [10], "step_s": 60}))
    assert (both.steps, both.step_s) == (3, 60)
    assert [both.share("b", step) for step in range(3)] == [10, 10, 10]


def test_a_share_has_the_replicas_that_it_needs() -> None:
    four = stack(deployment(num_replicas=4)).deployments[0]
    assert [replicas_for(share, four) for share in (5, 25, 50, 75)] == [1, 1, 2, 3]
    narrow = stack(deployment(num_replicas=4, rollout={"canary": CANARY, "max_surge": 1})).deployments[0]
    assert [replicas_for(share, narrow) for share in (5, 75)] == [1, 1]


def test_a_canary_stands_where_the_old_version_stands() -> None:
    match = as_match({"hosts": ["a.example"]})
    old = Route(prefix="/old", stack="s", deployment="a", version="1", match=match)
    new = stack(deployment(route_prefix="/new"))
    canary = Canary(deployment=new.deployments[0], replicas=(), share=25, sticky="side")
    route = canary_route(old, canary, merge_fronts([new]))
    assert (route.prefix, route.match, route.share, route.sticky) == ("/old", match, 25, "side")
    assert route.version == new.deployments[0].version
