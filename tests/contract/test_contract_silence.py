"""An engine whose bookkeeping does not answer: said soon, nothing piles up behind it, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from serveconf.cluster.actors import ActorCluster
from serveconf.cluster.gcs import SILENT_S, Gcs
from serveconf.cluster.settings import ClusterSettings
from serveconf.errors import EngineSilent
from serveconf.testing import FakeEngine, ManualClock

pytestmark = pytest.mark.anyio


class Away(Exception):
    """What the engine raises after a minute."""


class Deaf:
    """Calls that return when they are let go, with an error where there is one."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.gcs = Gcs((Away,), now=self.clock.now)
        self.error: Exception | None = None
        self.begun = threading.Semaphore(0)
        self._may_go = threading.Event()

    def call(self) -> str:
        """Blocks."""
        self.begun.release()
        self._may_go.wait()
        if self.error is not None:
            raise self.error
        return "done"

    async def begin(self, *, patient: bool = False) -> asyncio.Task[str]:
        """A call that is under way."""
        task = asyncio.ensure_future(self.gcs.do(self.call) if patient else self.gcs.ask(self.call))
        await asyncio.sleep(0)
        await asyncio.to_thread(self.begun.acquire)
        return task

    def let_go(self, error: Exception | None = None) -> None:
        """Whoever waits has its answer."""
        self.error = error
        self._may_go.set()


@pytest.fixture
async def deaf() -> AsyncIterator[Deaf]:
    deaf = Deaf()
    yield deaf
    deaf.let_go()


async def test_what_is_asked_of_a_silent_engine_is_refused_at_once_until_an_answer_comes(deaf: Deaf) -> None:
    call = await deaf.begin(patient=True)
    assert deaf.gcs.silent_for() is None
    deaf.clock.advance(SILENT_S + 1)
    assert deaf.gcs.silent_for() == SILENT_S + 1
    with pytest.raises(EngineSilent, match="has not answered for 5 s") as raised:
        await deaf.gcs.ask(lambda: "never called")
    assert raised.value.code == "store_silent"
    deaf.let_go()
    assert await call == "done"
    assert deaf.gcs.silent_for() is None
    assert await deaf.gcs.ask(lambda: "there again") == "there again"


async def test_who_has_asked_before_the_silence_was_known_hears_of_it_as_soon_as_it_is(deaf: Deaf) -> None:
    early = await deaf.begin()
    deaf.clock.advance(SILENT_S - 1)
    late = await deaf.begin()
    assert not early.done()
    deaf.clock.advance(1)
    for call in (early, late):
        with pytest.raises(EngineSilent, match="has not answered for 4 s"):
            await call
    deaf.let_go(Away())


async def test_an_error_that_says_that_nobody_answered_ends_no_silence_and_the_next_call_finds_out(deaf: Deaf) -> None:
    call = await deaf.begin(patient=True)
    deaf.clock.advance(SILENT_S)
    deaf.let_go(Away())
    with pytest.raises(Away):
        await call
    deaf.clock.advance(1)
    assert deaf.gcs.silent_for() == SILENT_S + 1
    assert await deaf.gcs.ask(lambda: "there again") == "there again"
    assert deaf.gcs.silent_for() is None


async def test_an_engine_that_answers_others_is_not_silent_however_long_one_call_takes(deaf: Deaf) -> None:
    await deaf.begin()
    for _ in range(3):
        deaf.clock.advance(SILENT_S - 1)
        assert await deaf.gcs.ask(lambda: "yes") == "yes"
    assert deaf.gcs.silent_for() is None


async def test_a_start_or_an_end_waits_for_an_engine_that_is_silent(deaf: Deaf) -> None:
    call = await deaf.begin(patient=True)
    deaf.clock.advance(SILENT_S)
    patient = asyncio.ensure_future(deaf.gcs.do(lambda: "started"))
    await asyncio.sleep(0)
    assert not patient.done()
    deaf.let_go()
    assert await call == "done"
    assert await patient == "started"


async def test_the_controller_tells_when_the_engine_falls_silent_and_answers_again() -> None:
    engine = FakeEngine()
    cluster = ActorCluster(engine, ClusterSettings(cluster_id="contract", secret=b"s" * 32))
    told: asyncio.Queue[str] = asyncio.Queue()
    cluster.on_silence = told.put_nowait
    await cluster.refresh()
    engine.silent_s = 5.0
    watching = asyncio.ensure_future(cluster.keep_nodes_fresh())
    assert (await told.get()).startswith("Ray's GCS has not answered for 5 s: nothing can be applied")
    assert cluster.silent_for() == 5.0
    assert [node.id for node in cluster.nodes()] == ["node0"]  # nobody is lost by it
    engine.silent_s = None
    assert await told.get() == "Ray's GCS answers again, after 5 s"
    watching.cancel()
