"""kill -9: what dies comes back, what lives goes on, and no GET is lost where somebody else can answer it."""

from __future__ import annotations

import functools
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from conftest import Stack
from load import Load
from place import ASK_S, Place, ask, end, until

WEB = "name: web, import_path: 'web:app', route_prefix: /$, num_replicas: 2"
SLOW = """
    import asyncio, os
    from contextlib import asynccontextmanager
    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(app):
        await asyncio.sleep(%s)
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def answer() -> str:
        await asyncio.sleep(0.1)
        return "%s"
    """

BLOCKING = """
    import asyncio, os, time
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def answer() -> int:
        return os.getpid()

    @app.get("/block")
    async def block() -> int:
        asyncio.get_running_loop().call_later(0.2, time.sleep, 600)
        return os.getpid()
    """


@pytest.fixture(scope="module")
def shared(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this module."""
    stack = Stack(place, "crashes", tmp_path_factory.mktemp("crashes"))
    yield stack
    place.ok("delete", "--stack", stack.name)


@pytest.fixture
def live(shared: Stack) -> Stack:
    """Two replicas that take a tenth of a second for an answer."""
    shared.code("web", SLOW % (0, "before"))
    shared.spec(WEB)
    shared.apply()
    until(shared.place.is_whole, "the stack is whole")
    return shared


def kill(*pids: int) -> None:
    """Without a word."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_killed_replica_is_replaced_and_its_gets_are_repeated(live: Stack) -> None:
    before = live.pids("web")
    victim = min(before)
    with Load(live.place.http_port, [f"/{live.name}"]) as load:
        until(lambda: load.answers > 20, "the load runs")
        kill(victim)
        until(lambda: len(live.pids("web") - {victim}) == 2 and live.place.is_whole(), "there are two again")
    assert load.failures == []
    assert before - {victim} < live.pids("web")


def test_killed_controller_comes_back_with_the_same_state_and_no_request_notices(live: Stack) -> None:
    place = live.place
    before, pids, revision = place.status(), live.pids("web"), place.stack(live.name)["revision"]
    with Load(place.http_port, [f"/{live.name}"]) as load:
        kill(before["controller"]["pid"])
        until(place.status, "the control API answers again")
        place.ok("status")
        until(live.place.is_whole, "everything is adopted")
    assert load.failures == []
    after = place.status()
    assert after["controller"]["pid"] != before["controller"]["pid"]
    assert after["generation"] == before["generation"]
    assert [p["pid"] for p in after["proxies"]] == [p["pid"] for p in before["proxies"]]
    assert live.pids("web") == pids
    assert place.stack(live.name)["revision"] == revision
    assert live.apply()["outcome"] == "unchanged"


def test_a_controller_that_finds_its_port_taken_at_its_restart_reconciles_and_waits_for_it(live: Stack) -> None:
    place = live.place
    before, pids = place.status()["controller"]["pid"], live.pids("web")
    kill(before)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        until(lambda: taken.bind(("127.0.0.1", place.control_port)) is None, "the port is another program's")
        taken.listen()
        kill(*pids)
        until(
            lambda: ask(live.url) == (200, '"before"'), "others answer, whom nobody but a controller can have started"
        )
    until(lambda: place.status()["controller"]["pid"] != before, "the control API answers again")
    until(place.is_whole, "it has seen everything")
    assert pids.isdisjoint(live.pids("web"))
    assert live.apply()["outcome"] == "unchanged"


def test_replica_whose_event_loop_is_blocked_is_told_by_status_and_then_replaced(live: Stack) -> None:
    live.code("web", BLOCKING)
    live.spec(f"{WEB}, event_loop_timeout_s: 12, graceful_shutdown_timeout_s: 1")
    live.apply()
    before = live.pids("web")
    blocked = int(ask(f"{live.url}/block")[1])
    assert blocked in before

    def told_of_one_that_serves() -> bool:
        (web,) = live.place.stack(live.name)["deployments"]
        ready = {r["pid"] for r in web["replicas"] if r["state"] == "Ready"}
        return blocked in ready and f"the event loop of pid {blocked} has been blocked" in web["message"]

    until(told_of_one_that_serves, "the status says so while it is Ready")
    until(lambda: blocked not in live.pids("web") and live.place.is_whole(), "it is replaced")
    assert len(live.pids("web")) == 2


def test_killed_proxy_listens_on_the_same_port_again(live: Stack) -> None:
    before = live.pids("web")
    proxy = live.place.status()["proxies"][0]
    kill(proxy["pid"])
    until(lambda: ask(live.url) == (200, '"before"'), "it answers again")
    until(lambda: live.place.status()["proxies"][0]["pid"] != proxy["pid"], "the controller has seen it")
    until(live.place.is_whole, "it has its table")
    again = live.place.status()["proxies"][0]
    assert (again["address"], again["state"]) == (proxy["address"], "Ready")
    assert live.pids("web") == before


def test_killed_proxy_is_followed_by_the_one_that_stands_by_and_nobody_is_refused(live: Stack) -> None:
    place = live.place

    (spare,) = until(lambda: _standing_by(place), "another one stands by")
    for _ in range(2):  # the second time it is the one that Ray has restarted
        kill(place.status()["proxies"][0]["pid"])
        outcomes = Counter(_connect(place.http_port) for _ in range(300))
        assert outcomes["refused"] == 0 and outcomes["answered"] > 290, outcomes
        assert ask(live.url) == (200, '"before"')
        until(functools.partial(_serves, place, spare), "the controller has seen who serves")
        (spare,) = until(lambda: _standing_by(place), "another one stands by again")


def _serves(place: Place, pid: int) -> bool:
    return [proxy["pid"] for proxy in place.status()["proxies"]] == [pid]


def _standing_by(place: Place) -> list[int]:
    """Pids, where the controller has seen who serves."""
    status = place.status()
    serving = {proxy["pid"] for proxy in status["proxies"]}
    pids = [s["pid"] for s in status["standbys"] if s["kind"] == "proxy" and s["state"] == "Ready"]
    return pids if len(serving) == 1 and not serving & set(pids) else []


def _connect(port: int) -> str:
    """One connection; those that the dead process had in its hands may be cut."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ASK_S) as client:
            client.sendall(b"GET /-/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return "answered" if client.recv(64).startswith(b"HTTP/1.1 200") else "cut"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "cut"


def test_controller_and_proxy_killed_together_come_back(live: Stack) -> None:
    before, pids = live.place.status(), live.pids("web")
    kill(before["controller"]["pid"], before["proxies"][0]["pid"])
    until(lambda: ask(live.url) == (200, '"before"'), "it answers again")
    until(live.place.is_whole, "everything is adopted")
    assert live.pids("web") == pids
    assert live.apply()["outcome"] == "unchanged"


@pytest.mark.parametrize("victims", ["controller", "proxy", "both"])
def test_killed_during_an_apply_it_is_finished_all_the_same(live: Stack, victims: str) -> None:
    place = live.place
    before, revision = place.status(), place.stack(live.name)["revision"]
    pids = {"controller": before["controller"]["pid"], "proxy": before["proxies"][0]["pid"]}
    live.code("web", SLOW % (2, "after"))
    apply = place.start("apply", live.file)
    assert apply.stderr is not None
    begun = next(line for line in apply.stderr if "Starting" in line)
    assert "web" in begun
    kill(*(pid for name, pid in pids.items() if victims in (name, "both")))
    done = end(apply)
    assert done.code == 0, done.err
    until(lambda: ask(live.url) == (200, '"after"'), "the new code answers")
    until(live.place.is_whole, "everything is as it should be")
    assert place.stack(live.name)["revision"] == revision + 1
    assert len(live.pids("web")) == 2
