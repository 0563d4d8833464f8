"""What an actor's process answers although the loop of its object stands still."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from serveconf.cluster import hosted as hosted_module
from serveconf.cluster.engine import Surroundings
from serveconf.cluster.hosted import Hosted
from serveconf.testing import MemoryStore

pytestmark = pytest.mark.anyio


class Dull:
    """Blocks its loop when it is asked to."""

    def __init__(self, may_go: threading.Event, surroundings: Surroundings) -> None:
        self._may_go = may_go

    async def run(self) -> None:
        """Nothing."""

    async def block(self) -> None:
        """As an async def does that calls what is none."""
        self._may_go.wait()


async def test_a_loop_that_stands_still_is_told_and_so_is_that_it_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hosted_module.KINDS, "dull", f"{__name__}:Dull")
    monkeypatch.setattr(hosted_module, "BLOCKED_S", 30.0)  # a busy machine may let a loop wait
    monkeypatch.setattr(hosted_module, "LOOK_S", 0.01)
    may_go = threading.Event()
    hosted = Hosted("dull", (may_go,), Surroundings(store=MemoryStore(), node_id="n", node_ip="127.0.0.1"))
    assert await hosted.call("blocked", (False,)) == 0.0  # asked for a while, it turned all the time
    blocking = asyncio.ensure_future(hosted.call("block", ()))
    monkeypatch.setattr(hosted_module, "BLOCKED_S", 0.1)
    assert await hosted.call("blocked", (False,)) == 0.1
    assert await hosted.call("blocked", (True,)) == 0.6  # it still does, says a call that has waited for long enough
    monkeypatch.setattr(hosted_module, "LOOK_S", 1.0)
    may_go.set()
    assert await hosted.call("room", ("one of several", "blocked", (True,))) == 0.0
    await blocking


async def test_a_process_that_is_to_be_ended_and_is_forgotten_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setitem(hosted_module.KINDS, "dull", f"{__name__}:Dull")
    monkeypatch.setattr(hosted_module, "END_S", 0.0)
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    hosted = Hosted("dull", (ended,), Surroundings(store=MemoryStore(), node_id="n", node_ip="127.0.0.1"))
    await hosted.call("end_soon", ())
    assert await asyncio.to_thread(ended.wait, 30)
