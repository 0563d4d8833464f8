"""kill -9 of the controller in the middle of a drain, a bake, a queued apply and a shutdown: each ends well."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path

from conftest import KEEPER, Stack
from held import HOLDS, Held
from place import Place, ask, end, until

WEB = "name: web, import_path: 'web:app', route_prefix: /$"
PATIENT = ", graceful_shutdown_timeout_s: 120, rollout: {ready_timeout_s: 120}"
SLOW_ANSWER = """
    import asyncio, os
    from fastapi import FastAPI
    app = FastAPI()

    @app.get("/")
    async def answer() -> str:
        return "%s"
    """
STARTS_WHEN_TOLD = """
    import asyncio
    from contextlib import asynccontextmanager
    from pathlib import Path
    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(app):
        while not Path("%s").exists():
            await asyncio.sleep(0.02)
        yield

    app = FastAPI(lifespan=lifespan)
    app.get("/")(lambda: "first")
    """


def kill_controller(place: Place) -> None:
    """And wait until another one answers."""
    before = place.status()["controller"]["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: place.status()["controller"]["pid"] != before, "another controller answers")


def states(stack: Stack) -> list[str]:
    """Of all replicas of web."""
    (web,) = stack.place.stack(stack.name)["deployments"]
    return sorted(replica["state"] for replica in web["replicas"])


def test_in_a_drain_the_old_replica_finishes_and_is_no_ghost(stack: Stack) -> None:
    stack.code("web", HOLDS % "before")
    stack.spec(WEB + PATIENT)
    stack.apply()
    stack.code("web", HOLDS % "after")
    with Held(stack.url, "a") as asking:
        asking.arrived()
        stack.apply()
        assert states(stack) == ["Draining", "Ready"]
        kill_controller(stack.place)
        asking.let_go()
        ((status, said),) = asking.answers()
        assert status == 200 and '"said":"before"' in said
    until(lambda: states(stack) == ["Ready"], "the old one has gone")
    assert '"said":"after"' in ask(stack.url)[1]


def test_in_a_bake_the_watch_goes_on(stack: Stack) -> None:
    stack.code("web", SLOW_ANSWER % "before")
    stack.spec(WEB + ", rollout: {bake_s: 6, max_error_rate: 0.1}")
    stack.apply()
    stack.code("web", SLOW_ANSWER % "after")
    applying = stack.place.start("apply", stack.file, "-o", "json")
    until(lambda: ask(stack.url) == (200, '"after"'), "it has switched")
    kill_controller(stack.place)
    done = end(applying)
    assert done.code == 0, done.err
    assert done.json["outcome"] == "applied"
    assert stack.place.stack(stack.name)["state"] == "Healthy"


def test_with_an_apply_in_the_queue_both_end_and_the_newest_or_the_first_serves(stack: Stack, tmp_path: Path) -> None:
    told = tmp_path.with_name(f"{tmp_path.name}-told")  # outside of what is code
    stack.code("web", SLOW_ANSWER % "before")
    stack.spec(WEB + PATIENT)
    stack.apply()
    stack.code("web", STARTS_WHEN_TOLD % told)
    first = stack.place.start("apply", stack.file, "-o", "json")
    until(lambda: states(stack) == ["Ready", "Starting"], "it has begun")
    stack.code("web", SLOW_ANSWER % "second")
    second = stack.place.start("apply", stack.file)
    assert second.stderr is not None
    assert any("another apply" in line for line in second.stderr)
    kill_controller(stack.place)
    told.touch()
    assert end(first).json["outcome"] == "applied"
    done = end(second)
    code = done.code  # what waited was in the memory of the one that died: it is told, and exits without a lie
    assert code in (0, 1), (done.out, done.err)
    word = "second" if code == 0 else "first"
    until(lambda: ask(stack.url) == (200, f'"{word}"'), "what was said to be applied serves")
    assert stack.apply()["outcome"] in ("applied", "unchanged")
    assert ask(stack.url) == (200, '"second"')


def test_in_a_shutdown_a_second_one_ends_everything() -> None:
    place = Place()
    try:
        folder = place.root / "keeper"
        folder.mkdir()
        (folder / "keeper.py").write_text(textwrap.dedent(HOLDS % "kept"))
        (folder / "serve.yaml").write_text(KEEPER % place.http_port)
        place.ok("apply", folder / "serve.yaml")
        with Held(f"{place.url}/keeper/", "a") as asking:
            asking.arrived()
            controller = place.status()["controller"]["pid"]
            stopping = place.start("shutdown")
            until(lambda: [p for p in place.status()["proxies"] if p["state"] == "Draining"], "it drains")
            os.kill(controller, signal.SIGKILL)
        end(stopping)  # it may end Ray itself, and with it who was asked
        place.run("shutdown")
        until(lambda: not place.processes(), "everything has ended")
    finally:
        place.run("shutdown")
        place.close()
