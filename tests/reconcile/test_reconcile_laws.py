"""Laws of what can be done to a stack: going back from going back, taking away and bringing again, saying a thing twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World, request

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def stacks(draw: st.DrawFn) -> list[dict[str, Any]]:
    made = []
    for name in draw(st.sets(st.sampled_from("abc"), min_size=1)):
        said = draw(
            st.fixed_dictionaries(
                {"num_replicas": st.integers(1, 3)},
                optional={
                    "user_config": st.integers(0, 1),
                    "route_prefix": st.sampled_from([f"/{name}", f"/{name}/moved", None]),
                    "init_args": st.lists(st.integers(0, 1), max_size=1),
                },
            )
        )
        made.append({"name": name, "import_path": f"{name}:app", **said})
    return sorted(made, key=lambda one: str(one["name"]))


def played(play: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(play, 120))


def fresh() -> World:
    return World(Path(tempfile.gettempdir()) / "serveconf-none")


def served(world: World) -> Any:
    """What is said of the stack, without numbers of revisions."""
    current = world.ledger.current("default")
    if current is None:
        return None
    routes = sorted((route.prefix, route.deployment, len(route.replicas)) for route in world.live.routes)
    said = [(d.name, d.spec, d.version, d.config_hash) for d in current.deployments]
    return routes, said, dict(current.http_options)


@FEW
@given(stacks(), stacks())
def test_a_rollback_of_a_rollback_is_what_was_before_both(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    async def play() -> None:
        world = fresh()
        first = (await world.apply(*one))["revision"]
        before = served(world)
        if not (await world.apply(*two))["changed"]:
            return
        after = served(world)
        assert (await world.run(world.plane.rollback("default", None, request())))["outcome"] == "applied"
        assert served(world) == before
        assert (await world.run(world.plane.rollback("default", first + 1, request())))["outcome"] == "applied"
        assert served(world) == after
        assert world.ledger.heads["default"].pinned
        await world.look()
        assert served(world) == after

    played(play())


@FEW
@given(stacks(), stacks())
def test_what_was_taken_away_and_comes_again_is_as_if_it_had_never_gone(
    one: list[dict[str, Any]], two: list[dict[str, Any]]
) -> None:
    async def play() -> None:
        world, other = fresh(), fresh()
        await world.apply(*one)
        assert (await world.run(world.plane.delete("default", None, request())))["outcome"] == "applied"
        assert (served(world), world.replicas()) == (None, [])
        await world.apply(*two)
        await other.apply(*two)
        assert served(world) == served(other)

    played(play())


@FEW
@given(stacks(), st.randoms())
def test_taking_deployments_away_one_by_one_or_together_leaves_the_same(stack: list[dict[str, Any]], dice: Any) -> None:
    async def play() -> None:
        names = [one["name"] for one in stack]
        gone = dice.sample(names, dice.randrange(len(names)))
        rest = [one for one in stack if one["name"] not in gone]
        world, together, never = fresh(), fresh(), fresh()
        for each in (world, together):
            await each.apply(*stack)
        for name in gone:
            assert (await world.run(world.plane.delete("default", [name], request())))["outcome"] == "applied"
        if gone:
            assert (await together.run(together.plane.delete("default", gone, request())))["outcome"] == "applied"
        await never.apply(*rest)
        assert served(world) == served(together) == served(never)

    played(play())


@FEW
@given(stacks(), st.integers(1, 4))
def test_saying_the_same_again_touches_no_replica_and_makes_no_revision(
    stack: list[dict[str, Any]], times: int
) -> None:
    async def play() -> None:
        world = fresh()
        await world.apply(*stack)
        before = world.replicas(), served(world), len(world.plane.history("default"))
        for _ in range(times):
            result = await world.apply(*reversed(stack))
            assert (result["outcome"], result["actions"]) == ("unchanged", [])
            await world.restart()
        assert (world.replicas(), served(world), len(world.plane.history("default"))) == before

    played(play())


@FEW
@given(stacks(), stacks())
def test_a_plan_says_what_the_apply_then_does_and_after_it_nothing(
    one: list[dict[str, Any]], two: list[dict[str, Any]]
) -> None:
    async def play() -> None:
        world = fresh()
        await world.apply(*one)
        plan = (await world.plane.plan(request(*two))).as_json()
        result = await world.apply(*two)
        assert result["actions"] == plan["actions"]
        assert result["changed"] == plan["changed"]
        assert not (await world.plane.plan(request(*two))).changed

    played(play())


@FEW
@given(stacks(), st.integers(-3, 9))
def test_only_what_was_kept_can_be_gone_back_to(stack: list[dict[str, Any]], number: int) -> None:
    async def play() -> None:
        world = fresh()
        await world.apply(*stack)
        before = served(world)
        result = await world.run(world.plane.rollback("default", number, request()))
        if number == 1:
            assert (result["outcome"], result["problems"]) == ("unchanged", [])
        else:
            assert [problem["code"] for problem in result["problems"]] == ["not_found"]
            assert result["changed"] is False
        assert served(world) == before

    played(play())
