"""Logs of several processes as one: in the order of the times that the lines say, and what a dead replica has left."""

from __future__ import annotations

from typing import Any

import pytest
from world import World

from serveconf.errors import NotFound, OperatorError
from serveconf.reconcile.log_lines import merged, time_of, timed
from serveconf.reconcile.logs import read_previous
from serveconf.reconcile.ports import LogPart

pytestmark = pytest.mark.anyio

WEB = {"name": "web", "import_path": "a:app", "num_replicas": 2}


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-31T08:00:00.250+00:00 INFO ready",
        "2026-01-31 08:00:00,250Z INFO ready",
        "[2026-01-31 09:00:00.250 +0100] GET /",
        '{"level": "info", "time": "2026-01-31T08:00:00.250+00:00", "message": "ready"}',
        '{"timestamp":"2026-01-31T08:00:00.250000000Z"}',
    ],
)
def test_a_line_is_taken_at_its_word(line: str) -> None:
    assert time_of(line) == 1769846400.25


@pytest.mark.parametrize("line", ["hello", "", "2026-13-77 08:00:00 x", '{"time": 7}', "at 2026-01-31 08:00:00"])
def test_a_line_without_a_time_at_its_begin_says_none(line: str) -> None:
    assert time_of(line) is None


def at(second: int, text: str) -> str:
    return f"2026-01-31T08:00:{second:02}Z {text}"


def test_lines_are_merged_by_time_and_a_traceback_stays_with_its_line() -> None:
    one = timed("a", ["starting", at(1, "one"), at(5, "failed"), "Traceback", "  boom", at(7, "three")])
    other = timed("b", [at(2, "two"), at(6, "between")])
    assert [(line.source, line.text.rpartition("Z ")[2]) for line in merged([list(one), list(other)])] == [
        ("a", "starting"),
        ("a", "one"),
        ("b", "two"),
        ("a", "failed"),
        ("a", "Traceback"),
        ("a", "  boom"),
        ("b", "between"),
        ("a", "three"),
    ]


def test_the_order_of_one_log_stays_whatever_its_lines_say() -> None:
    lines = list(timed("a", [at(5, "late"), at(3, "said earlier"), at(9, "last")]))
    assert [line.text for line in merged([lines])] == [line.text for line in lines]


async def rows(reading: Any) -> list[dict[str, Any]]:
    return [row async for row in reading]


async def test_the_replicas_of_a_deployment_are_one_log(world: World) -> None:
    await world.apply(WEB)
    one, other = world.replicas()
    said = {one: (at(1, "a"), at(3, "c")), other: (at(2, "b"),)}

    async def read_log(process: str, position: Any, tail: int) -> LogPart:
        return LogPart(lines=said[process], position={"out": 1})

    world.cluster.read_log = read_log  # type: ignore[method-assign]
    found = await rows(world.plane.logs("default", "web", tail=10, follow=False))
    assert [(row["replica"], row["line"][-1]) for row in found] == [(one, "a"), (other, "b"), (one, "c")]
    assert found[0]["time"] == "2026-01-31T08:00:01+00:00"


async def test_proxies_and_the_controller_have_logs_by_their_names(world: World) -> None:
    await world.apply(WEB)
    (proxy,) = (proxy.id for proxy in world.cluster.observe().proxies)
    found = await rows(world.plane.proxy_logs(tail=10, follow=False))
    assert found == [{"process": proxy, "time": None, "line": f"hello from {proxy}"}]
    found = await rows(world.plane.controller_log(tail=10, follow=False))
    assert found == [{"process": "controller", "time": None, "line": "hello from controller"}]


async def test_the_last_words_of_the_replica_that_died_last_are_found_by_its_event(world: World) -> None:
    with pytest.raises(NotFound):
        await rows(read_previous(world.cluster, world.events, "default", "web", tail=10))
    for pid, node in ((7, "n1"), (8, "n2")):
        data = {"replica": f"r{pid}", "node": node, "pid": pid, "ended": True}
        world.events.note(kind="heal", stack="default", deployment="web", message="died", data=data, like=str(pid))
    world.events.note(kind="heal", stack="default", deployment="web", message="well", data={"pid": 9, "ended": False})
    world.events.note(kind="heal", stack="default", deployment="api", message="died", data={"pid": 9, "ended": True})
    found = await rows(read_previous(world.cluster, world.events, "default", "web", tail=10))
    assert found == [{"replica": "r8", "time": None, "line": "the last words of 8 on n2"}]


async def test_a_log_that_is_lost_with_its_node_is_an_error(world: World) -> None:
    async def lost(node: str, pid: int, tail: int) -> LogPart:
        raise OperatorError("nothing runs there", code="no_answer")

    world.cluster.read_ended_log = lost  # type: ignore[method-assign]
    data = {"replica": "r", "node": "n", "pid": 7, "ended": True}
    world.events.note(kind="heal", stack="default", deployment="web", message="died", data=data)
    with pytest.raises(OperatorError, match="nothing runs there"):
        await rows(read_previous(world.cluster, world.events, "default", "web", tail=10))
