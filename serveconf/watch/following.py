"""Follow spec files: each one's stack is brought to what its file says, again whenever that has changed and settled.

Every file has a task of its own, so that none waits for another's apply and none falls over another's mistake. What is
served, and how, is behind ``Serving``; who wants to show what happens gets it as ``Said``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serveconf.errors import InternalError, ServeconfError
from serveconf.spec.load import Loaded
from serveconf.spec.problems import SpecInvalid
from serveconf.watch.contradictions import contradictions
from serveconf.watch.gate import Gate
from serveconf.watch.look import Look
from serveconf.watch.memory import Outcome
from serveconf.watch.notice import Notice, tells_nothing
from serveconf.watch.places import joined
from serveconf.watch.ports import Options, Said, Serving
from serveconf.watch.settle import News
from serveconf.watch.sources import find_specs, without_included

POLL_S = 2.0  # how often it looks by itself where the system tells of changes
SILENT_POLL_S = 0.4  # … where it does not
GONE_S = 0.4  # a file that is away for so long has been taken away
ALL_S = 6.0  # how long a first look waits for those of the other files
THREADS = 1_000  # at most: one for each apply, as that waits for its end, and some to look beside them
AGAIN_S = 5.0  # before a task that has failed for a fault of ours begins anew


class Following:
    """Everything that the tasks of one watcher share. Made and used on one event loop."""

    def __init__(
        self,
        sources: Sequence[Path],
        serving: Serving,
        tell: Callable[[Said], None],
        options: Options,
        follow: Callable[[Path, Following], Coroutine[None, None, None]],
    ) -> None:
        """``follow`` does the work for one file, until it is cancelled."""
        self.sources = tuple(sources)
        self.serving = serving
        self.tell = tell
        self.options = options
        self.news = News()
        self.looks: dict[Path, Look] = {}  # the newest settled ones
        self._claiming: dict[Path, Loaded] = {}  # what each said when it was last understood
        self.live: dict[Path, str] = {}  # file -> the stack that it has brought about
        self.firsts: dict[
            Path, tuple[Outcome | None, ServeconfError | None]
        ] = {}  # what became of each file's first try
        self.settled: set[Path] = set()  # files of which the first try is over, however it ended
        self._known_silent = any(tells_nothing(str(source)) for source in self.sources)
        self._untold = 0
        self.silent = self._known_silent  # no news comes: it is on its own looks
        self.data: dict[Path, frozenset[str]] = {}
        self.lost: set[Path] = set()  # files whose stack nobody can be asked about just now
        self._all_served = False
        self.gate = Gate(options.lock)  # held open by who reads files, closed by who changes them
        self._all_by = asyncio.get_running_loop().time() + ALL_S
        self._pruned: object = None  # the files and claims that were pruned by
        self._error: BaseException | None = None
        self._follow = follow
        self._notice = Notice(self.news.ring)
        self._tasks: dict[Path, asyncio.Task[None]] = {}
        self._found = find_specs(self.sources)

    @property
    def poll_s(self) -> float:
        """Seconds between two looks without news."""
        if self.options.poll_s is not None:
            return self.options.poll_s
        return SILENT_POLL_S if self.silent or self._notice.failed or not self.options.events else POLL_S

    @property
    def told(self) -> int:
        """How many changes the system has told of."""
        return self._notice.heard

    @property
    def ready(self) -> bool:
        """Whether all stacks have served as their files say, and can be asked about.

        What comes later, a bad edit or a file that is new, takes nothing away that serves: whoever sends requests to whom is
        ready must not stop for it.
        """
        self._all_served = self._all_served or (bool(self._tasks) and self._tasks.keys() <= self.live.keys())
        return self._all_served and not self.lost

    @property
    def all_tried(self) -> bool:
        """Whether each file's first try is over, however it ended."""
        return bool(self._tasks) and self._tasks.keys() <= self.settled

    async def run(self) -> None:
        """Until it is cancelled, or a first apply has failed and that is to end it (FirstFailed)."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="follow"))
        try:
            while True:
                heard = self.news.count
                self._watch()
                await self._keep_tasks()
                if self._error is not None:
                    raise self._error
                await self.news.wait(heard, self.poll_s)
        finally:
            self._notice.close()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def seen(self, look: Look) -> None:
        """A settled look: what it is made of is watched from now on, and the others are compared with it."""
        before = self.looks.get(look.file)
        self.looks[look.file] = look
        if look.loaded is not None:
            self._claiming[look.file] = look.loaded
        if before is None or before.places != look.places or before.key != look.key:
            self._watch()
            self.news.ring()

    def watch_without(self, look: Look, data: frozenset[str]) -> None:
        """What the app itself writes is no news any more."""
        root = str(look.loaded.app_dir) if look.loaded else ""
        self.data[look.file] = frozenset(f"{root}/{path}" for path in data)
        self._watch()

    def note_change(self, *, told: bool) -> None:
        """A change was found, and the system had ``told`` of it or not. Twice not: it never does here."""
        self._untold = 0 if told else self._untold + 1
        self.silent = self._untold > 1 or self._known_silent

    def contradiction(self, file: Path) -> ServeconfError | None:
        """What stands against applying this file, because of another one: what that said before it was broken goes on serving."""
        problems = contradictions(said for other, said in self._claiming.items() if other in self._tasks).get(file)
        return SpecInvalid(problems) if problems else None

    async def all_seen(self) -> None:
        """Until every file has been looked at for the first time: what contradicts another is not applied, then."""
        while not self._tasks.keys() <= self.looks.keys():
            left = self._all_by - asyncio.get_running_loop().time()
            if left <= 0:
                return
            await self.news.wait(self.news.count, left)

    def fail_first(self, error: BaseException) -> None:
        """End it all with this error."""
        self._error = self._error or error
        self.news.ring()

    def _watch(self) -> None:
        if not (self.options.watching and self.options.events):
            return
        places = joined([self._found.places, *(look.places for look in self.looks.values())])
        self._notice.watch(places, frozenset().union(*self.data.values()))

    async def _keep_tasks(self) -> None:
        """One task for each file that there is."""
        self._found = await asyncio.to_thread(find_specs, self.sources)
        included = [
            Path(file)
            for look in self.looks.values()
            for file in look.files
            if look.loaded is not None and file != str(look.file) and Path(file).is_absolute()
        ]
        files = without_included(self._found.files, included)
        for file in files:
            if file not in self._tasks:
                self._tasks[file] = asyncio.create_task(self._guarded(file), name=f"follow {file}")
        if any(file not in files for file in self._tasks):
            await self._drop_gone()
        if self.options.prune:
            await self._prune()

    async def _guarded(self, file: Path) -> None:
        """A fault of ours in one file's task is told, and ends neither the others nor, for long, this one."""
        while True:
            try:
                return await self._follow(file, self)
            except Exception as fault:  # noqa: BLE001 - the edge of one file: the others must go on
                error = InternalError(f"{type(fault).__name__}: {fault}")
                self.tell(Said(kind="error", message="what is served is unchanged", file=file, error=error))
            await asyncio.sleep(AGAIN_S)

    async def _drop_gone(self) -> None:
        """Files that were there are not: those that do not come back at once nobody follows any more."""
        await asyncio.sleep(GONE_S)
        found = await asyncio.to_thread(find_specs, self.sources)
        there = set(found.files) - _included(self.looks.values())
        await asyncio.gather(*(self._drop(file) for file in list(self._tasks) if file not in there))

    async def _drop(self, file: Path) -> None:
        task = self._tasks.pop(file)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.looks.pop(file, None)
        self._claiming.pop(file, None)
        self.settled.discard(file)
        stack = self.live.pop(file, None)
        if stack is not None and not self.options.prune:
            message = f"{file.name} is gone; stack '{stack}' goes on serving (--prune would take it away)"
            self.tell(Said(kind="gone", message=message, file=file, stack=stack))

    async def _prune(self) -> None:
        """Only where every file that is there is understood: one that is broken just now may claim anything."""
        files = self._found.files
        looks = [self.looks.get(file) for file in files]
        if self._found.missing or not files or any(look is None or look.loaded is None for look in looks):
            return
        claimed = frozenset(look.stack for look in looks if look and look.stack)
        if (files, claimed) == self._pruned:
            return
        try:
            for stack in await asyncio.to_thread(self.serving.prune, files, claimed):
                self.tell(Said(kind="pruned", message=f"stack '{stack}' is taken away: no file claims it", stack=stack))
            self._pruned = (files, claimed)
        except ServeconfError as error:
            self.tell(Said(kind="waiting", message=f"nothing can be taken away now: {error.message}"))


def _included(looks: Iterable[Look]) -> set[Path]:
    return {Path(file) for look in looks if look.loaded for file in look.files if file != str(look.file)}
