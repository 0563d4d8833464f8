"""``run``: start, watch, apply what changed, and leave nothing after Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Stack
from place import COMMAND, COMMAND_S, Place, ask, until

WEB = "name: web, import_path: 'web:app', route_prefix: /$"
NEVER_READY = """
    import asyncio
    from contextlib import asynccontextmanager
    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(app):
        await asyncio.Event().wait()
        yield

    app = FastAPI(lifespan=lifespan)
    """


class Running:
    """A command in the foreground of a terminal's session; everything that it says goes to a file."""

    def __init__(self, place: Place, log: Path, *args: str | Path) -> None:
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [str(COMMAND), *map(str, args)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=place.env,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """Everything so far."""
        return self._log.read_text()

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has said something, so many times."""
        until(lambda: self.said.count(text) >= times or self.process.poll() is not None, f"it says {text!r}")
        assert self.said.count(text) >= times, self.said

    def hang_up(self) -> int:
        """Its exit code after a SIGHUP, as when its terminal is closed."""
        os.killpg(self.process.pid, signal.SIGHUP)
        return self.process.wait(timeout=COMMAND_S)

    def press_ctrl_c(self) -> int:
        """Its exit code after a SIGINT to everything in the foreground, as a terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=COMMAND_S)

    def terminate(self) -> int:
        """Its exit code after a SIGTERM to it alone, as a supervisor sends it."""
        self.process.terminate()
        return self.process.wait(timeout=COMMAND_S)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts commands that are ended with the test."""
    begun: list[Running] = []

    def start(place: Place, *args: str | Path) -> Running:
        begun.append(Running(place, tmp_path / f"said{len(begun)}", *args))
        return begun[-1]

    yield start
    for running in begun:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def rename_over(path: Path, text: str) -> None:
    """As editors save."""
    beside = path.with_name(f".{path.name}.swp")
    beside.write_text(text)
    beside.replace(path)


def test_edits_of_code_and_spec_are_applied_and_a_broken_spec_changes_nothing(
    stack: Stack, place: Place, begin: Callable[..., Running]
) -> None:
    stack.says("web", "first")
    stack.spec(WEB)
    run = begin(place, "run", stack.file)
    run.says("watching")
    assert '"said":"first"' in ask(stack.url)[1]

    stack.says("web", "second")
    until(lambda: '"said":"second"' in ask(stack.url)[1], "the new code answers")

    rename_over(stack.folder / "web.py", (stack.folder / "web.py").read_text().replace("second", "third"))
    until(lambda: '"said":"third"' in ask(stack.url)[1], "the code that was renamed over answers")

    good = stack.file.read_text()
    rename_over(stack.file, good.replace("route_prefix", "route_prefx"))
    run.says("goes on serving")
    assert "route_prefx" in run.said
    assert '"said":"third"' in ask(stack.url)[1]

    rename_over(stack.file, good.replace(f"/{stack.name}", f"/{stack.name}/moved"))
    until(lambda: ask(f"{stack.url}/moved")[0] == 200, "the mended spec is applied")

    stack.code("web", "raise LookupError('half done')\n")
    run.says("LookupError: half done")
    assert '"said":"third"' in ask(f"{stack.url}/moved")[1]
    stack.says("web", "fourth")
    until(lambda: '"said":"fourth"' in ask(f"{stack.url}/moved")[1], "the mended code answers")

    assert run.press_ctrl_c() == 0, run.said
    assert stack.name not in {found["name"] for found in place.status()["stacks"]}


def test_run_twice_in_a_row_starts_everything_and_leaves_nothing(tmp_path: Path, begin: Callable[..., Running]) -> None:
    place = Place()
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "web.py").write_text(
        "from fastapi import FastAPI\napp = FastAPI()\napp.get('/')(lambda: 'hi')\n"
    )
    file = tmp_path / "app" / "serve.yaml"
    file.write_text(
        f"http_options: {{port: {place.http_port}}}\n"
        "deployments:\n  - {name: web, import_path: 'web:app', route_prefix: /}\n"
    )
    try:
        for stop in (Running.press_ctrl_c, Running.terminate, Running.hang_up):
            run = begin(place, "run", file)
            run.says("watching")
            assert ask(place.url) == (200, '"hi"')
            assert stop(run) == 0, run.said
            assert "Traceback" not in run.said
            until(lambda: not place.processes(), "nothing is left")
    finally:
        place.run("shutdown")
        place.close()


def test_a_run_whose_output_is_gone_leaves_nothing(tmp_path: Path) -> None:
    """``run … 2>&1 | tee log`` and Ctrl-C: the reader ends first; then the same with the whole terminal."""
    place = Place()
    (tmp_path / "web.py").write_text("from fastapi import FastAPI\napp = FastAPI()\napp.get('/')(lambda: 'hi')\n")
    file = tmp_path / "serve.yaml"
    file.write_text(
        f"http_options: {{port: {place.http_port}}}\n"
        "deployments:\n  - {name: web, import_path: 'web:app', route_prefix: /}\n"
    )
    try:
        run = subprocess.Popen(
            ["sh", "-c", f"{COMMAND} run {file} 2>&1; echo $? > {tmp_path / 'code'}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=place.env,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert run.stdout is not None
        until(lambda: ask(place.url) == (200, '"hi"'), "it serves")
        run.stdout.close()
        os.killpg(run.pid, signal.SIGINT)
        run.wait(timeout=COMMAND_S)
        until(lambda: not place.processes(), "nothing is left")

        outer, inner = pty.openpty()
        run = subprocess.Popen(
            [str(COMMAND), "run", str(file)],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=place.env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        until(lambda: read_all(outer) and ask(place.url) == (200, '"hi"'), "it serves")
        os.close(outer)
        assert run.wait(timeout=COMMAND_S) == 0
        until(lambda: not place.processes(), "nothing is left")
    finally:
        place.run("shutdown")
        place.close()


def read_all(terminal: int) -> bool:
    """Read what there is on a terminal, so that nobody waits to write there."""
    while select.select([terminal], [], [], 0)[0]:
        os.read(terminal, 4096)
    return True


@pytest.mark.parametrize("moment", ["no Ray cluster in reach", "starting the controller"])
def test_ctrl_c_while_starting_leaves_nothing(tmp_path: Path, begin: Callable[..., Running], moment: str) -> None:
    place = Place()
    (tmp_path / "web.py").write_text(textwrap.dedent(NEVER_READY))
    file = tmp_path / "serve.yaml"
    file.write_text(
        f"http_options: {{port: {place.http_port}}}\ndeployments:\n  - {{name: web, import_path: 'web:app'}}\n"
    )
    try:
        apply = begin(place, "apply", file)
        apply.says(moment)
        assert apply.press_ctrl_c() in (3, 130), apply.said  # 3: it had begun by then
        assert "Traceback" not in apply.said
        until(lambda: not place.processes(), "nothing is left")
    finally:
        place.run("shutdown")
        place.close()


def test_ctrl_c_during_an_apply_takes_it_back(stack: Stack, place: Place, begin: Callable[..., Running]) -> None:
    stack.says("web", "before")
    stack.spec(WEB)
    stack.apply()
    before = stack.pids("web")
    stack.code("web", NEVER_READY)
    apply = begin(place, "apply", stack.file)
    apply.says("Starting")
    assert apply.press_ctrl_c() in (3, 130), apply.said
    assert "Traceback" not in apply.said
    assert stack.pids("web") == before
    assert '"said":"before"' in ask(stack.url)[1]
    until(place.is_whole, "it is whole again")
