"""Who reads files and who changes them: never both at once, in one process or in several, and whoever goes lets the others on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serveconf.watch import file_lock
from serveconf.watch.gate import Gate

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_lock, "AGAIN_S", 0.001)


class Room:
    """Who is inside; fails where somebody changes what another one reads or changes."""

    def __init__(self) -> None:
        self.readers = self.changers = self.most_readers = self.visits = 0

    async def read(self, gate: Gate, turns: int) -> None:
        async with gate.reading():
            self.readers += 1
            self.visits += 1
            self.most_readers = max(self.most_readers, self.readers)
            assert not self.changers
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
                    assert not self.changers
            finally:
                self.readers -= 1

    async def change(self, gate: Gate, turns: int) -> None:
        async with gate.changing():
            self.changers += 1
            self.visits += 1
            assert (self.readers, self.changers) == (0, 1)
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
                    assert (self.readers, self.changers) == (0, 1)
            finally:
                self.changers -= 1


VISITS = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 6) | st.none()), max_size=12)


@settings(max_examples=80)
@given(VISITS)
def test_nobody_reads_what_changes_whoever_comes_and_whoever_is_ended_on_the_way(
    visits: list[tuple[bool, int, int | None]],
) -> None:
    """``None``: it stays to its end; a number: it is cancelled after so many turns of the loop."""

    async def play() -> None:
        gate, room = Gate(), Room()
        tasks = []
        for reads, turns, _ in visits:
            inside = room.read(gate, turns) if reads else room.change(gate, turns)
            tasks.append(asyncio.ensure_future(inside))
        for turn in range(8):
            await asyncio.sleep(0)
            for task, (_, _, ends) in zip(tasks, visits, strict=True):
                if ends == turn and not task.done():
                    task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert not [one for one in done if isinstance(one, Exception)]
        stayed = sum(ends is None for _, _, ends in visits)
        assert room.visits >= stayed
        assert (room.readers, room.changers) == (0, 0)
        await asyncio.wait_for(room.change(gate, 1), 20)
        await asyncio.wait_for(room.read(gate, 1), 20)

    asyncio.run(play())


async def test_many_read_at_once_and_who_waits_to_change_is_not_overtaken() -> None:
    gate, room, order = Gate(), Room(), []

    async def noted(name: str, inside: Any) -> None:
        await inside
        order.append(name)

    first = [asyncio.ensure_future(noted("read", room.read(gate, 5))) for _ in range(3)]
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(noted("change", room.change(gate, 1)))
    await asyncio.sleep(0)
    late = asyncio.ensure_future(noted("late", room.read(gate, 0)))
    await asyncio.gather(*first, waiting, late)
    assert room.most_readers == 3
    assert order == ["read"] * 3 + ["change", "late"]


async def test_a_file_holds_between_gates_that_know_nothing_of_each_other(tmp_path: Path) -> None:
    file, room = tmp_path / "deep" / "one.lock", Room()
    gates = [Gate(file) for _ in range(3)]
    work = [room.read(gate, 3) for gate in gates] + [room.change(gate, 3) for gate in gates]
    await asyncio.wait_for(asyncio.gather(*work), 20)
    assert room.visits == 6


async def test_a_lock_that_can_not_be_had_is_told_and_the_gate_stays_open(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    link = tmp_path / "link.lock"
    link.symlink_to(tmp_path / "elsewhere")
    gate, room = Gate(link), Room()
    for inside in (room.read(gate, 0), room.change(gate, 0)):
        with pytest.raises(OSError, match=r"link\.lock"):
            await inside
    link.unlink()
    await asyncio.wait_for(asyncio.gather(room.change(gate, 0), room.read(gate, 0)), 20)
    assert room.visits == 2


async def test_who_is_ended_while_he_waits_for_another_process_lets_go(tmp_path: Path) -> None:
    file, gate, room = tmp_path / "one.lock", Gate(tmp_path / "one.lock"), Room()
    async with file_lock.alone(file):
        waiting = asyncio.ensure_future(room.change(gate, 0))
        for _ in range(5):
            await asyncio.sleep(0)
        waiting.cancel()
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
    await asyncio.wait_for(room.read(gate, 0), 20)


def test_a_thread_waits_for_another_one_and_no_longer_when_it_is_stopped(tmp_path: Path) -> None:
    file, stopped, order = tmp_path / "one.lock", threading.Event(), []

    def wait() -> None:
        with file_lock.waited_for(file, stopped=stopped.is_set):
            order.append("in")

    with file_lock.waited_for(file):
        thread = threading.Thread(target=wait)
        thread.start()
        order.append("first")
        stopped.set()
        thread.join(20)
        assert order == ["first", "in"]
    with file_lock.waited_for(file):
        order.append("again")
    assert order[-1] == "again"
