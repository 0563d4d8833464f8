"""Edits of a live stack under constant load on all routes: no request fails, and what did not change keeps its processes."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from conftest import Stack
from edited import ADDED
from load import Load
from place import ASK_S, GOING, Place, ask

ONE = "name: one, import_path: 'one:app', route_prefix: /$/one, num_replicas: 2"
TWO = "name: two, import_path: 'two:app', route_prefix: /$/two"
THREE = "name: three, import_path: 'two:app', route_prefix: /$/three"
TUNED = "name: tuned, import_path: 'tuned:Tuned', route_prefix: /$/tuned, user_config: {word: %s}"

CLASS = """
    import os

    class Tuned:
        def reconfigure(self, user_config):
            self.word = user_config["word"]

        def __call__(self, request):
            return {"said": self.word, "pid": os.getpid()}
    """


@pytest.fixture(scope="module")
def shared(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this module."""
    stack = Stack(place, "edits", tmp_path_factory.mktemp("edits"))
    yield stack
    place.ok("delete", "--stack", stack.name)


@pytest.fixture
def live(shared: Stack) -> Stack:
    """Three deployments that serve, whatever the test before has left."""
    shared.says("one", "first")
    shared.says("two", "second")
    shared.code("tuned", CLASS)
    shared.code("added", ADDED)
    shared.spec(ONE, TWO, TUNED % "low")
    shared.apply()
    return shared


def edited(
    live: Stack, edit: Callable[[Stack], None], kept: set[str], lasting: tuple[str, ...] = ("one", "two", "tuned")
) -> dict[str, set[str]]:
    """Apply an edit under load. Asserts that nothing failed and who kept its processes; returns actions by deployment."""
    names = ("one", "two", "tuned")
    before = {name: live.pids(name) for name in names}
    edit(live)
    with Load(live.place.http_port, [f"/{live.name}/{name}" for name in lasting]) as load:
        result = live.apply()
    assert load.failures == []
    assert result["outcome"] == "applied" and result["changed"] and result["receipt"]["failed"] == 0
    now = {
        d["name"]: {r["pid"] for r in d["replicas"] if r["state"] not in GOING}
        for d in live.place.stack(live.name)["deployments"]
    }
    assert {name for name in names if before[name] == now.get(name)} == kept
    costs: dict[str, set[str]] = {}
    for action in result["actions"]:
        costs.setdefault(action["deployment"], set()).add(action["cost"])
    return costs


def test_added_deployment_serves_and_the_others_stay(live: Stack) -> None:
    edited(live, lambda s: s.spec(ONE, TWO, TUNED % "low", THREE), kept={"one", "two", "tuned"})
    assert '"said":"second"' in ask(f"{live.url}/three")[1]


def test_removed_deployment_is_gone_and_the_others_stay(live: Stack) -> None:
    costs = edited(live, lambda s: s.spec(ONE, TUNED % "low"), kept={"one", "tuned"}, lasting=("one", "tuned"))
    assert costs == {"two": {"remove"}}
    assert ask(f"{live.url}/two")[0] == 404


def test_moved_deployment_answers_at_its_new_prefix_with_the_same_process(live: Stack) -> None:
    moved = TWO.replace("/$/two", "/$/elsewhere")
    costs = edited(
        live, lambda s: s.spec(ONE, moved, TUNED % "low"), kept={"one", "two", "tuned"}, lasting=("one", "tuned")
    )
    assert costs == {"two": {"route"}}
    assert (ask(f"{live.url}/two")[0], ask(f"{live.url}/elsewhere")[0]) == (404, 200)


def test_changed_code_rolls_the_deployment_that_imports_it(live: Stack) -> None:
    costs = edited(live, lambda s: s.says("one", "changed"), kept={"two", "tuned"})
    assert costs == {"one": {"roll"}}
    assert '"said":"changed"' in ask(f"{live.url}/one")[1]


def test_more_and_fewer_replicas_keep_those_that_stay(live: Stack) -> None:
    before = live.pids("one")
    more = ONE.replace("num_replicas: 2", "num_replicas: 3")
    costs = edited(live, lambda s: s.spec(more, TWO, TUNED % "low"), kept={"two", "tuned"})
    assert costs == {"one": {"scale"}}
    now = live.pids("one")
    assert before < now and len(now) == 3
    fewer = ONE.replace("num_replicas: 2", "num_replicas: 1")
    edited(live, lambda s: s.spec(fewer, TWO, TUNED % "low"), kept={"two", "tuned"})
    assert len(live.pids("one")) == 1 and live.pids("one") < now


def test_changed_middlewares_restart_nothing(live: Stack) -> None:
    added = "middlewares: [{import_path: 'added:Adds', kwargs: {value: yes!}}]"
    costs = edited(live, lambda s: s.spec(ONE, f"{TWO}, {added}", TUNED % "low"), kept={"one", "two", "tuned"})
    assert costs == {"two": {"route"}}


def test_changed_user_config_is_handed_over_without_a_restart(live: Stack) -> None:
    costs = edited(live, lambda s: s.spec(ONE, TWO, TUNED % "high"), kept={"one", "two", "tuned"})
    assert costs == {"tuned": {"reconfigure"}}
    assert '"said":"high"' in ask(f"{live.url}/tuned")[1]


GRAPH = """
    import asyncio, os
    from serveconf import serve

    @serve.deployment
    class Model:
        def double(self, number):
            return 2 * number

    @serve.deployment(graceful_shutdown_timeout_s=0.5)
    class Front:
        def __init__(self, model):
            self.model = model

        async def __call__(self, request):
            if "lines" in request.query_params:
                return self.lines(int(request.query_params["lines"]))
            context = serve.get_replica_context()
            return {"pid": os.getpid(), "four": await self.model.double.remote(2), "app": context.app_name}

        async def lines(self, count):
            for number in range(count):
                yield f"{number}\\n"
                await asyncio.sleep(0.1)

    app = Front.bind(Model.bind())
    """


def test_a_renamed_application_keeps_its_processes_its_streams_and_its_calls(live: Stack) -> None:
    live.code("graph", GRAPH)
    live.spec(ONE, "name: shop, import_path: 'graph:app', route_prefix: /$/shop, num_replicas: 2")
    live.apply()
    before = live.pids("shop"), live.pids("shop.Model"), live.pids("one")
    stream = urllib.request.urlopen(f"{live.url}/shop?lines=60", timeout=ASK_S)
    live.spec(
        ONE.replace("name: one", "name: single"),
        "name: store, import_path: 'graph:app', route_prefix: /$/shop, num_replicas: 2",
    )
    with live.file.open("a") as file:
        file.write("moved: [{from: shop, to: store}, {from: one, to: single}]\n")
    planned = live.place.ok("plan", live.file).out
    assert "moved: shop → store" in planned and "moved: one → single" in planned
    with Load(live.place.http_port, [f"/{live.name}/shop", f"/{live.name}/one"]) as load:
        result = live.apply()
    assert load.failures == []
    moved = {(x["deployment"], x["cost"]) for x in result["actions"]}
    assert moved == {("store", "route"), ("store.Model", "route"), ("single", "route")}
    assert (live.pids("store"), live.pids("store.Model"), live.pids("single")) == before
    assert '"app":"store"' in ask(f"{live.url}/shop")[1].replace(" ", "")
    assert stream.read().split() == [b"%d" % number for number in range(60)]
    live.place.ok("rollback", "--stack", live.name)
    assert (live.pids("shop"), live.pids("shop.Model"), live.pids("one")) == before
    assert '"four":4' in ask(f"{live.url}/shop")[1].replace(" ", "")
    live.place.ok("resume", "--stack", live.name)


def test_a_stream_outlives_replicas_that_come_and_go_beside_its_own(live: Stack) -> None:
    live.code("graph", GRAPH)
    shop = "name: shop, import_path: 'graph:app', route_prefix: /$/shop, num_replicas: %d"
    live.spec(ONE, shop % 1)
    live.apply()
    stream = urllib.request.urlopen(f"{live.url}/shop?lines=80", timeout=ASK_S)
    live.spec(ONE, shop % 2)
    live.apply()
    time.sleep(1)  # more than graceful_shutdown_timeout_s
    live.spec(ONE, shop % 3)
    live.apply()
    time.sleep(1)
    assert stream.read().split() == [b"%d" % number for number in range(80)]


def test_a_touch_is_no_change(live: Stack) -> None:
    os.utime(live.folder / "one.py")
    live.file.write_text(f"# a comment\n{live.file.read_text()}")
    assert live.apply()["outcome"] == "unchanged"
