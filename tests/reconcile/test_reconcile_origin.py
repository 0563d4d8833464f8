"""Where what serves came from, and whether it still is what came from there."""

from __future__ import annotations

import pytest
from world import World, request

from serveconf.plan.state import DesiredStack
from serveconf.reconcile.origin import git_source, origin_of
from serveconf.reconcile.records import Ledger, Revision, StackHead


class NoStore:
    """Nothing is read or written here."""


def ledger(*sources: str) -> Ledger:
    found = Ledger(NoStore())  # type: ignore[arg-type]
    found.revisions["shop"] = {
        number: Revision(
            number=number,
            stack="shop",
            time=0.0,
            desired=DesiredStack(name="shop", revision=number),
            source=source,
            commit="abc" if source else None,
        )
        for number, source in enumerate(sources, 1)
    }
    return found


def head(current: int, **more: object) -> StackHead:
    return StackHead(name="shop", current=current, last=2, **more)  # type: ignore[arg-type]


def test_a_file_is_a_source_and_so_is_a_repository() -> None:
    assert origin_of(ledger("/srv/shop/serve.yaml"), head(1)) == {
        "kind": "file",
        "location": "/srv/shop/serve.yaml",
        "branch": None,
        "path": "serve.yaml",
        "commit": "abc",
        "in_sync": True,
    }
    source = git_source("https://git.example/a#b.git", "release/1", "deploy/shop.yaml")
    assert origin_of(ledger(source), head(1)) == {
        "kind": "git",
        "location": "https://git.example/a#b.git",
        "branch": "release/1",
        "path": "deploy/shop.yaml",
        "commit": "abc",
        "in_sync": True,
    }


def test_without_a_branch_it_is_the_repositorys_own() -> None:
    found = origin_of(ledger(git_source("/srv/shop", None, "serve.yaml")), head(1))
    assert found is not None and found["branch"] is None


@pytest.mark.parametrize(
    ("sources", "at", "in_sync"),
    [
        (("/a", "/a"), head(2), True),
        (("/a", "/a"), head(1), False),  # the newest failed, or was rolled back
        (("/a", ""), head(2), False),  # somebody took a deployment away
        (("/a",), head(1, pinned=True), False),
        (("/a",), head(1, target=2), False),
        (("/a",), head(1, invalid="it does not import"), False),
    ],
)
def test_in_sync_is_what_was_said_last_and_nothing_since(
    sources: tuple[str, ...], at: StackHead, in_sync: bool
) -> None:
    found = origin_of(ledger(*sources), at)
    assert found is not None and found["in_sync"] is in_sync


def test_what_came_from_nowhere_has_no_source() -> None:
    assert origin_of(ledger(""), head(1)) is None


@pytest.mark.anyio
async def test_what_is_said_again_after_a_failure_is_in_sync(world: World) -> None:
    web = {"name": "web", "import_path": "a:app"}
    await world.apply(web, source="/srv/serve.yaml", commit="one")
    operation = world.plane.apply(request(web, files={"a.py": "2"}, source="/srv/serve.yaml", commit="two"))
    serving = {replica.version for replica in world.cluster.observe().replicas}
    while (target := world.ledger.target("default")) is None:
        await world.look()
    world.cluster.broken |= {deployment.version for deployment in target.deployments} - serving
    assert (await world.run(operation))["outcome"] == "rolled_back"
    assert told(world) == ("two", False)
    assert (await world.apply(web, source="/srv/serve.yaml", commit="three"))["outcome"] == "unchanged"
    assert told(world) == ("three", True)
    await world.restart()
    assert told(world) == ("three", True)
    await world.apply({**web, "num_replicas": 2}, source="/srv/serve.yaml", commit="four")
    assert told(world) == ("four", True)
    await world.apply({**web, "num_replicas": 2})  # by somebody who names no file
    assert told(world) == ("four", True)


def told(world: World) -> tuple[str | None, bool]:
    found = origin_of(world.ledger, world.ledger.heads["default"])
    assert found is not None
    return found["commit"], found["in_sync"]
