"""Requests that add to a stack, as ``.deploy()`` makes them: each changes what it names and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from world import World, request

from serveconf.errors import Conflict
from serveconf.reconcile.merge import merged_spec
from serveconf.reconcile.requests import ApplyRequest

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app"}
B: dict[str, Any] = {"name": "b", "import_path": "b:app"}


async def test_a_merge_adds_its_deployment_and_touches_no_other(world: World) -> None:
    await world.apply(A, http_options={"port": 8100})
    before = world.serving("/a")
    result = await world.apply(B, merge=True, files={"b.py": "1"}, code="f00d")
    assert [(x["action"], x["deployment"]) for x in result["actions"]] == [("create", "b")]
    assert world.serving("/a") == before
    current = world.ledger.current("default")
    assert current is not None
    assert [(d.name, d.code) for d in current.deployments] == [("a", "c0de111"), ("b", "f00d")]
    assert current.http_options == {"port": 8100}


async def test_a_merge_replaces_the_deployment_of_its_name(world: World) -> None:
    await world.apply(A, B)
    a, b = world.serving("/a"), world.serving("/b")
    await world.apply({**B, "route_prefix": "/moved", "num_replicas": 2}, merge=True)
    assert world.serving("/a") == a
    assert set(b) < set(world.serving("/moved"))
    assert {route.prefix for route in world.live.routes} == {"/a", "/moved"}


async def test_a_merge_of_nothing_new_changes_nothing(world: World) -> None:
    await world.apply(A, B)
    result = await world.apply(B, merge=True)
    assert (result["outcome"], result["changed"]) == ("unchanged", False)


async def test_a_merge_of_http_options_keeps_the_keys_that_it_does_not_name(world: World) -> None:
    middleware = {"import_path": "m:One"}
    await world.apply(A, http_options={"port": 8100, "middlewares": [middleware]})
    await world.apply(merge=True, http_options={"root_path": "/api"})
    assert world.live.front.root_path == "/api"
    assert [m.import_path for m in world.live.front.middlewares] == ["m:One"]
    await world.apply(merge=True, http_options={"middlewares": []})
    assert world.live.front.middlewares == ()
    assert world.serving("/a")


async def test_a_first_merge_makes_the_stack(world: World) -> None:
    result = await world.apply(A, merge=True)
    assert (result["outcome"], result["revision"]) == ("applied", 1)


async def test_a_merge_that_takes_anothers_prefix_is_refused(world: World) -> None:
    await world.apply(A)
    result = await world.apply({**B, "route_prefix": "/a"}, merge=True)
    assert result["outcome"] == "conflict"
    assert "route_prefix /a" in result["problems"][0]["message"]
    assert "'a'" in result["problems"][0]["message"]


async def test_the_history_shows_the_whole_stack_after_a_merge(world: World) -> None:
    await world.apply(A, http_options={"port": 8100})
    await world.apply({**B, "num_replicas": 2}, merge=True, http_options={"root_path": "/x"})
    (last, _) = world.plane.history("default")
    assert last.spec["http_options"] == {"port": 8100, "root_path": "/x"}
    assert last.spec["deployments"] == [A, {**B, "num_replicas": 2}]


async def test_the_history_shows_what_a_delete_left_and_what_a_rollback_brought_back(world: World) -> None:
    await world.apply(A, B)
    await world.run(world.plane.delete("default", ["b"], request()))
    await world.run(world.plane.rollback("default", None, request()))
    shown = [[d["name"] for d in revision.spec["deployments"]] for revision in world.plane.history("default")]
    assert shown == [["a", "b"], ["a"], ["a", "b"]]


async def test_the_first_stack_is_published_when_it_has_no_deployment_yet(world: World) -> None:
    await world.apply(merge=True)
    assert world.live.number == 1
    assert world.live.routes == ()


async def test_an_apply_that_takes_the_front_away_ends_when_the_proxies_are_gone(world: World) -> None:
    await world.apply(A)
    assert world.cluster.observe().proxies
    await world.apply(merge=True, http_options={"location": "NoServer"})
    assert world.cluster.observe().proxies == ()


async def test_code_is_looked_at_again_after_a_merge(world: World) -> None:
    """Two packages may hold one import path; what was learned of the one says nothing about the other."""
    await world.apply(A, code="0ne", files={"a.py": "1"})
    await world.apply(B, merge=True, code="tw0", files={"b.py": "1"})
    await world.apply(A, merge=True, code="tw0", files={"a.py": "2"})
    assert world.preflight.asked == ["a:app", "b:app", "a:app"]
    current = world.ledger.current("default")
    assert current is not None
    assert [(d.name, d.code, d.modules) for d in current.deployments] == [
        ("a", "tw0", {"a.py": "2"}),
        ("b", "tw0", {"b.py": "1"}),
    ]


async def test_only_whose_own_files_have_changed_is_looked_at_again(world: World) -> None:
    await world.apply(A, B, files={"a.py": "1", "b.py": "1"})
    await world.apply(A, B, files={"a.py": "1", "b.py": "2"})
    assert world.preflight.asked == ["a:app", "b:app", "b:app"]
    await world.apply(A, B, files={"a.py": "1", "b.py": "2", "settings.json": "1"})  # nobody can tell who reads it
    assert world.preflight.asked[3:] == ["a:app", "b:app"]


async def test_where_a_file_is_new_or_gone_everybody_may_import_something_else(world: World) -> None:
    await world.apply(A, B, files={"a.py": "1", "b.py": "1"})
    await world.apply(A, B, files={"a.py": "1", "b.py": "1", "json.py": "1"})
    assert world.preflight.asked[2:] == ["a:app", "b:app"]
    await world.apply(A, B, files={"a.py": "1", "b.py": "2", "json.py": "1"})
    assert world.preflight.asked[4:] == ["a:app", "b:app"]
    await world.apply(A, B, files={"a.py": "1", "b.py": "3", "json.py": "1"})
    assert world.preflight.asked[6:] == ["b:app"]
    await world.apply(A, B, files={"a.py": "1", "b.py": "3"})
    assert world.preflight.asked[7:] == ["a:app", "b:app"]


async def test_each_deployment_keeps_the_folder_that_it_came_from(world: World) -> None:
    await world.apply(A)
    await world.run(world.plane.apply(_from("/other", B)))
    current = world.ledger.current("default")
    assert current is not None
    assert [(d.name, d.app_dir) for d in current.deployments] == [("a", "/app"), ("b", "/other")]


async def test_a_plan_of_a_merge_removes_nothing(world: World) -> None:
    await world.apply(A)
    plan = await world.plane.plan(request(B, merge=True))
    assert [action.deployment for action in plan.actions] == ["b"]
    with pytest.raises(Conflict):
        await world.plane.plan(request({**B, "route_prefix": "/a"}, merge=True))


def _from(folder: str, deployment: dict[str, Any]) -> ApplyRequest:
    return replace(request(deployment, merge=True), app_dir=folder)


async def test_one_that_is_to_be_alone_takes_the_others_place_and_leaves_the_front(world: World) -> None:
    before = {"name": "shop", "http_options": {"port": 81}, "deployments": [A]}
    said = {"name": "shop", "deployments": [B]}
    assert merged_spec(said, before)["deployments"] == [A, B]
    assert merged_spec(said, before, alone=True) == {"name": "shop", "http_options": {"port": 81}, "deployments": [B]}
