"""What a script that calls by handle is told, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serveconf.admin.handles import Peering, handles_router
from serveconf.figures import DeploymentLoad
from serveconf.testing.memory import MemoryStore

LOAD = {"arrivals": 3, "completions": 1, "ongoing": 2, "ongoing_s": 0.5}


class Script:
    """The route, and what was heard of scripts."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, DeploymentLoad]]] = []
        self.store = MemoryStore()
        self.app = FastAPI()
        self.app.include_router(handles_router(self.store, Peering(secret=b"s", node_id="n"), self._hear))

    def post(self, **said: Any) -> httpx.Response:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post("/handles", **said)

        return asyncio.run(main())

    def _hear(self, script: str, loads: Mapping[str, DeploymentLoad]) -> None:
        self.heard.append((script, dict(loads)))


@pytest.fixture
def script() -> Script:
    return Script()


def test_the_table_is_sent_where_it_is_another_one_than_the_script_has(script: Script) -> None:
    assert script.post().json()["table"] is None
    asyncio.run(script.store.put("generation", b"table"))
    told = script.post().json()
    assert (told["table"], told["secret"], told["node_id"]) == ("dGFibGU=", "73", "n")
    again = script.post(params={"seen": told["digest"]}).json()
    assert again["table"] is None and again["digest"] == told["digest"]
    assert script.heard == []


def test_what_a_script_asks_of_deployments_is_heard(script: Script) -> None:
    body = {"script": "1", "loads": {"shop/cart": LOAD}}
    assert script.post(json=body).status_code == 200
    assert script.heard == [("1", {"shop/cart": DeploymentLoad(**LOAD)})]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        {"script": "", "loads": {}},
        {"loads": {}},
        {"script": "1", "loads": {"a/b": {"arrivals": -1}}},
        {"script": "1", "loads": {"a/b": {"ongoing_s": 1e300}}},
        {"script": "1", "loads": {"a/b": {"other": 1}}},
    ],
)
def test_what_is_no_report_is_refused(script: Script, body: Any) -> None:
    assert script.post(json=body).status_code == 422
    assert script.heard == []
