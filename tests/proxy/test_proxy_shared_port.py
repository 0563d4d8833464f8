"""One listener, several processes, one of which serves it: who is next, and that no client is refused in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serveconf.proxy.ports import listen
from serveconf.proxy.shared_port import SharedPort

ONE = """
import asyncio, os, sys, time
from pathlib import Path
from serveconf.proxy.ports import listen
from serveconf.proxy.shared_port import SharedPort

async def answer(reader, writer):
    await reader.readline()
    writer.write(b"%d\\n" % os.getpid())
    writer.close()

async def main():
    port = SharedPort(Path(sys.argv[1]), lambda: listen("127.0.0.1", int(sys.argv[2]), reuse_port=True))
    async def serve():
        await asyncio.start_server(answer, sock=port.listener.dup())
        print("serves", flush=True)
    if await port.enter():
        if "fork" in sys.argv and os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        await serve()
    else:
        print("stands by", flush=True)
        await port.wait(serve)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Processes:
    """Those that share a port."""

    def __init__(self, place: Path, port: int) -> None:
        self.place, self.port = place, port
        self.all: list[subprocess.Popen[str]] = []

    def start(self, *more: str) -> subprocess.Popen[str]:
        """One more; it has a process group of its own."""
        command = [sys.executable, "-c", ONE, str(self.place), str(self.port), *more]
        one = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.all.append(one)
        return one

    def said(self, one: subprocess.Popen[str]) -> str:
        """Its next line."""
        assert one.stdout is not None
        return one.stdout.readline().strip()

    def ask(self) -> int:
        """Who answers; raises where the connection is refused, or cut."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as client:
            client.sendall(b"who\n")
            return int(client.makefile().readline())


@pytest.fixture
def processes(tmp_path: Path, free_port: int) -> Iterator[Processes]:
    found = Processes(tmp_path / "place", free_port)
    yield found
    for one in found.all:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.wait()
        assert one.stdout is not None
        one.stdout.close()


def test_when_who_serves_is_killed_the_next_one_goes_on_and_no_client_is_refused(processes: Processes) -> None:
    first = processes.start()
    assert processes.said(first) == "serves"
    second = processes.start()
    assert processes.said(second) == "stands by"
    for _ in range(3):
        assert processes.ask() == first.pid
        first.kill()
        assert processes.ask() == second.pid
        assert processes.said(second) == "serves"
        first, second = second, processes.start()
        assert processes.said(second) == "stands by"


def test_one_that_stands_by_and_is_killed_is_nothing_that_a_client_sees(processes: Processes) -> None:
    first = processes.start()
    assert processes.said(first) == "serves"
    second = processes.start()
    assert processes.said(second) == "stands by"
    second.kill()
    second.wait()
    third = processes.start()
    assert processes.said(third) == "stands by"
    assert processes.ask() == first.pid
    first.kill()
    assert processes.ask() == third.pid


def test_of_several_that_stand_by_one_serves_and_the_others_go_on_standing_by(processes: Processes) -> None:
    first = processes.start()
    assert processes.said(first) == "serves"
    others = [processes.start() for _ in range(3)]
    assert [processes.said(one) for one in others] == ["stands by"] * 3
    for _ in range(3):
        first.kill()
        serving = processes.ask()
        first = next(one for one in others if one.pid == serving)
        others.remove(first)
        assert processes.ask() == first.pid


def test_a_child_that_user_code_has_forked_does_not_keep_the_port_from_the_next(processes: Processes) -> None:
    first = processes.start("fork")
    assert processes.said(first) == "serves"
    second = processes.start()
    assert processes.said(second) == "stands by"
    first.kill()
    assert processes.said(second) == "serves"


def test_where_both_have_died_the_next_one_listens_anew(processes: Processes) -> None:
    first = processes.start()
    assert processes.said(first) == "serves"
    first.kill()
    first.wait()
    second = processes.start()
    assert processes.said(second) == "serves"
    assert processes.ask() == second.pid


async def enter(place: Path, port: int) -> tuple[SharedPort, bool]:
    one = SharedPort(place, lambda: listen("127.0.0.1", port, reuse_port=True))
    return one, await one.enter()


@pytest.mark.anyio
async def test_who_leaves_hands_over_with_whoever_waits_in_the_queue(tmp_path: Path, free_port: int) -> None:
    first, serves = await enter(tmp_path / "place", free_port)
    assert serves
    second, serves = await enter(tmp_path / "place", free_port)
    assert not serves
    served: list[str] = []

    async def serve() -> None:
        served.append("second")

    waiting = asyncio.create_task(second.wait(serve))
    client = socket.create_connection(("127.0.0.1", free_port))
    assert await first.hand_over() and served == ["second"]
    await waiting
    assert first.listener is None and second.listener is not None
    second.listener.accept()[0].close()
    client.close()
    assert not await second.hand_over()  # nobody is left
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port))


@pytest.mark.anyio
async def test_one_that_has_left_is_not_handed_the_port(tmp_path: Path, free_port: int) -> None:
    first, _ = await enter(tmp_path / "place", free_port)
    second, _ = await enter(tmp_path / "place", free_port)
    second.leave()
    assert not await first.hand_over()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port))


@pytest.mark.anyio
async def test_where_the_port_cannot_be_taken_the_next_one_may_try(tmp_path: Path) -> None:
    def refuse() -> socket.socket:
        raise OSError("taken")

    for _ in range(2):
        with pytest.raises(OSError, match="taken"):
            await SharedPort(tmp_path / "place", refuse).enter()
