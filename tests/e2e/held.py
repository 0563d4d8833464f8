"""Requests that are under way for as long as a test wants it, however slow or fast the machine is.

Each has a file: the app makes it when it is asked, and answers when it is gone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from place import ask, until

HOLDS = """
    import asyncio, os
    from pathlib import Path
    from fastapi import FastAPI
    app = FastAPI()

    @app.get("/")
    async def answer(held: str = "", seconds: float = 0) -> dict:
        if held:
            Path(held).touch()
        while held and Path(held).exists():
            await asyncio.sleep(0.02)
        await asyncio.sleep(seconds)
        return {"said": "%s", "pid": os.getpid()}
    """


class Held:
    """Requests to an app of HOLDS; whatever is still held at the end of the ``with`` block is let go."""

    def __init__(self, url: str, names: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="held"))  # outside of what is code
        self._pool = ThreadPoolExecutor(len(names))
        self._answers: dict[str, Future[tuple[int, str]]] = {
            name: self._pool.submit(ask, f"{url}?held={self._folder / name}") for name in names
        }

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *raised: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._pool.shutdown()

    def arrived(self) -> None:
        """Wait until the app has been asked all of them."""
        until(lambda: all((self._folder / name).exists() for name in self._answers), "the requests are with the app")

    def let_go(self, *names: str) -> None:
        """Have those answered that have arrived; without names all of them."""
        for name in names or self._answers:
            (self._folder / name).unlink()

    def answers(self) -> list[tuple[int, str]]:
        """What they have got, in their order."""
        return [self._answer(name) for name in self._answers]

    def _answer(self, name: str) -> tuple[int, str]:
        try:
            return self._answers[name].result()
        except OSError as error:
            return 0, f"{name}: {error!r}; {'again' if (self._folder / name).exists() else 'not'} with an app"
