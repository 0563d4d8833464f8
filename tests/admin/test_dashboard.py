"""The dashboard from outside: signed in once, known by cookie and key together, and nothing in it from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from test_admin_api import TOKEN, URL, Api

from serveconf.admin.keys import Keys
from serveconf.admin.looking import nodes_router
from serveconf.admin.page import PAGE_HEADERS, parts
from serveconf.admin.sessions import INVITATION_S, SESSION_S, Role, Sessions
from serveconf.figures import DeploymentFigures, ProcessFigures, ProxyFigures
from serveconf.plan.state import Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.curves import IDLE, Curves, quantile_ms
from serveconf.reconcile.ports import NodeState
from serveconf.testing import FakeCluster

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(folder: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(Api(folder).app), base_url=URL)


async def test_a_browser_is_signed_in_once_and_needs_cookie_and_key(tmp_path: Path) -> None:
    async with client(tmp_path) as http:
        address = (await http.post("/api/v1/sign-in", headers=TOKEN)).json()["address"]
        page = await http.get(address)
        key = re.search(r'serveconf-key" content="([0-9a-f]+)"', page.text)
        assert page.status_code == 200
        assert key is not None
        cookie = page.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await http.get(address)).status_code == 403
        right = {"x-serveconf-key": key[1]}
        assert (await http.get("/api/v1/status", headers=right)).status_code == 200
        assert (await http.get("/api/v1/status")).status_code == 401
        foreign = {**right, "sec-fetch-site": "same-site"}
        assert (await http.get("/api/v1/status", headers=foreign)).status_code == 401
        http.cookies.clear()
        assert (await http.get("/api/v1/status", headers=right)).status_code == 401


def test_a_session_ends_and_an_invitation_is_for_now() -> None:
    time = [1000.0]
    sessions = Sessions(Keys("secret"), wall=lambda: time[0], now=lambda: time[0])
    session = sessions.sign_in(sessions.invite(Role.READ))
    assert session is not None
    said = (f"serveconf={session}", sessions.key(session))
    assert sessions.role(*said) is Role.READ
    assert Sessions(Keys("secret"), wall=lambda: time[0]).role(*said) is Role.READ  # the next controller knows it too
    assert Sessions(Keys("other"), wall=lambda: time[0]).role(*said) is None
    forged = session.replace("read", "write")
    assert sessions.role(f"serveconf={forged}", sessions.key(forged)) is None
    late = sessions.invite(Role.WRITE)
    time[0] += max(SESSION_S, INVITATION_S) + 1
    assert sessions.sign_in(late) is None
    assert sessions.role(*said) is None


def test_a_clock_that_is_set_ends_no_invitation_and_leaves_no_session_for_years() -> None:
    wall, now = [1_700_000_000.0], [50.0]
    sessions = Sessions(Keys("secret"), wall=lambda: wall[0], now=lambda: now[0])
    invited, late = sessions.invite(Role.READ), sessions.invite(Role.READ)
    wall[0] += 3600
    session = sessions.sign_in(invited)
    assert session is not None
    said = (f"serveconf={session}", sessions.key(session))
    wall[0] -= 7200
    assert sessions.role(*said) is Role.READ
    now[0] += INVITATION_S
    assert sessions.sign_in(late) is None  # the clock that was put back gives it no more time
    wall[0] -= 365 * 24 * 3600  # it was a year ahead when the browser signed in
    assert sessions.role(*said) is None


def test_the_page_is_small_and_has_nothing_inline_or_from_elsewhere() -> None:
    assert sum(map(len, parts().values())) <= 150_000
    assert "unsafe" not in PAGE_HEADERS["content-security-policy"]
    for name, data in parts().items():
        text = data.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|\son\w+=\"|style=\"|document\.write", text), name


def proxy(began: float, answers: int) -> dict[str, ProxyFigures]:
    figures = DeploymentFigures()
    for _ in range(answers):
        figures.duration("GET", 500).observe(0.003)
    return {"n-0": ProxyFigures(deployments={"s/d": figures}, process=ProcessFigures(began=began))}


def test_a_curve_has_what_was_counted_in_between_also_past_a_proxys_end() -> None:
    curves = Curves()
    curves.tick(proxy(1.0, 5))
    curves.tick(proxy(1.0, 7))
    curves.tick(proxy(2.0, 3))
    curves.tick(proxy(2.0, 3))
    assert [point.requests for point in curves.points()["s/d"]] == [2, 3, 0]
    assert [point.errors for point in curves.points()["s/d"]] == [2, 3, 0]
    assert curves.points()["s/d"][-1] == IDLE
    assert sum(curves.buckets("s/d")) == 5
    assert quantile_ms(curves.buckets("s/d"), 1.0) == 5.0


async def test_a_node_is_named_by_its_host_and_says_when_it_drains() -> None:
    replica = ReplicaState(
        id="s.d.1", stack="s", deployment="d", version="v", node_id="a", host="gpu-1", phase=ReplicaPhase.READY
    )

    class TwoNodes(FakeCluster):
        def nodes(self) -> tuple[NodeState, ...]:
            return NodeState(id="a", is_head=True), NodeState(id="b", is_head=False, drains=True)

        def observe(self) -> Observed:
            return Observed(replicas=(replica,))

    app = FastAPI()
    app.include_router(nodes_router(TwoNodes()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL) as http:
        nodes = (await http.get("/nodes")).json()
    assert [(node["name"], node["is_head"], node["drains"]) for node in nodes] == [
        ("gpu-1", True, False),
        ("", False, True),
    ]
