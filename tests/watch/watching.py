"""A watcher over real files, with a cluster that only writes down what it is given."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serveconf.errors import ServeconfError
from serveconf.watch.follower import follow_one
from serveconf.watch.following import Following
from serveconf.watch.look import Look
from serveconf.watch.memory import Fate, Outcome
from serveconf.watch.ports import Drift, Options, Said

Beside = Callable[[Following, Callable[[Said], None]], Coroutine[None, None, None]]
SPEC = "name: {name}\ndeployments:\n  - {{name: {name}, import_path: 'web:app'}}\n"
WITHIN_S = 120.0  # far more than it takes: the machine may be busy


class FakeServing:
    """Serves whatever it is given, but for what a test says of a stack (``fates``), and tells what it was asked."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, str]] = []  # stack, and what web.py said by then
        self.started: list[str] = []  # stacks, as their applies begin
        self.fates: dict[str, Outcome | ServeconfError] = {}
        self.written: dict[str, frozenset[str]] = {}
        self.drifts: dict[str, str] = {}
        self.pinned: set[str] = set()
        self.refused_before: dict[str, str | ServeconfError] = {}
        self.pruned: list[str] = []
        self.there: dict[str, Path] = {}  # stack -> the file it came from
        self.cancelled: list[str] = []
        self.looked = 0  # how often it was asked for drift
        self.recorded: list[tuple[str, str, str]] = []  # kind, stack, message
        self.hold = threading.Event()  # applies wait for it
        self.hold.set()
        self.drains = False  # what serves replaces something that goes when the apply is completed, and not before
        self.completed = threading.Event()

    def apply(self, look: Look, *, first: bool, live: Callable[[], None]) -> Outcome:
        assert look.loaded is not None
        name = look.loaded.spec.name
        self.started.append(name)
        self.hold.wait(WITHIN_S)
        web = look.loaded.app_dir / "web.py"
        self.applied.append((name, web.read_text() if web.exists() else ""))
        fate = self.fates.get(name, Outcome(fate=Fate.SERVED))
        if isinstance(fate, ServeconfError):
            raise fate
        if fate.fate is Fate.SERVED:
            self.there[name] = look.file
            self.drifts.pop(name, None)
            if self.drains:
                live()
                self.completed.wait(WITHIN_S)
                self.completed.clear()
        return fate

    def complete(self, look: Look) -> None:
        self.completed.set()

    def cancel(self, look: Look) -> None:
        self.cancelled.append(look.stack or "")
        self.hold.set()
        self.completed.set()

    def drift(self, look: Look) -> Drift | None:
        self.looked += 1
        found = self.drifts.get(look.stack or "")
        return Drift(message=found, pinned=look.stack in self.pinned) if found else None

    def data(self, look: Look) -> frozenset[str]:
        return self.written.get(look.stack or "", frozenset())

    def prune(self, present: Iterable[Path], claimed: frozenset[str]) -> list[str]:
        gone = [name for name in self.there if name not in claimed]
        for name in gone:
            del self.there[name]
            self.pruned.append(name)
        return gone

    def quarantined(self, look: Look) -> str:
        why = self.refused_before.get(look.stack or "", "")
        if isinstance(why, ServeconfError):
            raise why
        return why

    def record(self, look: Look, kind: str, message: str) -> None:
        self.recorded.append((kind, look.stack or "", message))


class Watcher:
    """A running watcher; ``said`` is what it told."""

    def __init__(
        self, sources: list[Path], serving: FakeServing, options: Options, beside: Beside | None = None
    ) -> None:
        self.serving = serving
        self.said: list[Said] = []
        self.error: BaseException | None = None
        self.following: Following | None = None
        self._sources, self._options, self._beside = sources, options, beside
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        async def main() -> None:
            self.following = Following(self._sources, self.serving, self.said.append, self._options, follow_one)
            beside = asyncio.ensure_future(self._beside(self.following, self.said.append)) if self._beside else None
            task = asyncio.ensure_future(self.following.run())
            loop = asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                await task
            finally:
                if beside is not None:
                    beside.cancel()
                    await asyncio.gather(beside, return_exceptions=True)

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        if self._thread.is_alive():
            self._stop()
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()

    def until(self, look: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not look():
            assert time.monotonic() < deadline, f"never: {what}; {self.serving.applied}; {self.kinds()}; {self.error}"
            time.sleep(0.01)

    def kinds(self, kind: str = "") -> list[tuple[str, str]]:
        return [(said.kind, said.message) for said in self.said if kind in ("", said.kind)]

    def comes_to(self, *expected: tuple[str, str]) -> None:
        """What has been applied is this, and nothing more comes."""
        self.until(lambda: self.serving.applied[-1:] == [expected[-1]], f"what comes last is {expected[-1]}")
        assert self.rests() == [*expected]

    def rests(self, seconds: float = 1.2) -> list[tuple[str, str]]:
        """What has been applied once nothing has happened for a while."""
        last, since = len(self.serving.started), time.monotonic()
        while time.monotonic() - since < seconds:
            if len(self.serving.started) != last:
                last, since = len(self.serving.started), time.monotonic()
            time.sleep(0.02)
        return self.serving.applied


@contextmanager
def watching(
    *sources: Path, serving: FakeServing | None = None, beside: Beside | None = None, **options: object
) -> Iterator[Watcher]:
    """A watcher of these sources, ended with the block; ``beside`` runs as long."""
    watcher = Watcher(list(sources), serving or FakeServing(), Options(**options), beside)  # type: ignore[arg-type]
    try:
        yield watcher
    finally:
        watcher.stop()


def lay_out(folder: Path, word: str = "one", name: str = "shop") -> Path:
    """A folder with a spec and its app; the spec."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "web.py").write_text(word)
    (folder / "serve.yaml").write_text(SPEC.format(name=name))
    return folder / "serve.yaml"


def rename_over(path: Path, text: str) -> None:
    """As editors save."""
    beside = path.with_name(f".{path.name}.swp")
    beside.write_text(text)
    beside.replace(path)
