"""The controller's own port: the first one is told that it is taken, one that comes back waits for it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from serveconf.cluster import controller as controllers
from serveconf.cluster.controller import Controller
from serveconf.cluster.engine import Surroundings
from serveconf.cluster.settings import ControllerSettings
from serveconf.errors import PortInUse
from serveconf.testing import MemoryStore

pytestmark = pytest.mark.anyio


def controller(port: int, *, restarted: bool) -> Controller:
    surroundings = Surroundings(store=MemoryStore(), node_id="n", node_ip="127.0.0.1", restarted=restarted)
    return Controller(ControllerSettings(port=port), surroundings)


async def test_one_that_comes_back_says_that_its_port_is_taken_and_has_it_when_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controllers, "FIRST_PAUSE_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        back = controller(port, restarted=True)
        waiting = asyncio.ensure_future(back._bound())
        assert str(port) in (await back.address()).error
        assert not waiting.done()
    server = await waiting
    assert server.port == port
    assert server._socket is not None
    server._socket.close()


async def test_the_first_one_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortInUse):
        await controller(taken.getsockname()[1], restarted=False)._bound()
