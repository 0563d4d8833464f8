"""kill -9 of the controller in the middle of a drain, a bake, a queued apply and a shutdown: each ends well."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal

from conftest import KEEPER, Stack
from place import Place, ask, end, until

WEB = "name: web, import_path: 'web:app', route_prefix: /$"
SLOW_ANSWER = """
    import asyncio, os
    from fastapi import FastAPI
    app = FastAPI()

    @app.get("/")
    async def answer(seconds: float = 0) -> str:
        await asyncio.sleep(seconds)
        return "%s"
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
    stack.code("web", SLOW_ANSWER % "before")
    stack.spec(WEB)
    stack.apply()
    stack.code("web", SLOW_ANSWER % "after")
    with Asking(f"{stack.url}?seconds=8") as asking:
        stack.apply()
        assert states(stack) == ["Draining", "Ready"]
        kill_controller(stack.place)
        assert asking.answer() == (200, '"before"')
    until(lambda: states(stack) == ["Ready"], "the old one has gone")
    assert ask(stack.url) == (200, '"after"')


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


def test_with_an_apply_in_the_queue_both_end_and_the_newest_or_the_first_serves(stack: Stack) -> None:
    stack.code("web", SLOW_ANSWER % "before")
    stack.spec(WEB + ", rollout: {bake_s: 5}")
    stack.apply()
    stack.code("web", SLOW_ANSWER % "first")
    first = stack.place.start("apply", stack.file, "-o", "json")
    until(lambda: ask(stack.url) == (200, '"first"'), "it has switched")
    stack.code("web", SLOW_ANSWER % "second")
    second = stack.place.start("apply", stack.file)
    assert second.stderr is not None
    assert any("another apply" in line for line in second.stderr)
    kill_controller(stack.place)
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
        (folder / "keeper.py").write_text(
            "import asyncio\nfrom fastapi import FastAPI\napp = FastAPI()\n"
            "@app.get('/')\nasync def slow(): await asyncio.sleep(6)\n"
        )
        (folder / "serve.yaml").write_text(KEEPER % place.http_port)
        place.ok("apply", folder / "serve.yaml")
        with Asking(f"{place.url}/keeper/") as asking:
            stopping = place.start("shutdown")
            until(lambda: [p for p in place.status()["proxies"] if p["state"] == "Draining"], "it drains")
            os.kill(place.status()["controller"]["pid"], signal.SIGKILL)
            with contextlib.suppress(
                OSError, http.client.HTTPException
            ):  # the command may end Ray itself, and it with it
                asking.answer()
        end(stopping)
        place.run("shutdown")
        until(lambda: not place.processes(), "everything has ended", 30)
    finally:
        place.run("shutdown")
        place.close()


class Asking:
    """A request that is on its way."""

    def __init__(self, url: str) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(1)
        self._url = url

    def __enter__(self) -> Asking:
        import time

        self._asked = self._pool.submit(ask, self._url)
        time.sleep(0.5)
        return self

    def answer(self) -> tuple[int, str]:
        """What it got."""
        return self._asked.result(40)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
