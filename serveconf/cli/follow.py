"""What ``run``, ``watch`` and ``sync`` share: stacks are followed until a signal ends it, and the exit code says how it went."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serveconf.cli.applying import exit_code_of
from serveconf.cli.ending import Ending
from serveconf.cli.own_output import note_own_output
from serveconf.errors import Conflict, OperatorError, ServeconfError
from serveconf.private import note_own_file

if TYPE_CHECKING:
    from serveconf.watch.following import Following
    from serveconf.watch.memory import Outcome
    from serveconf.watch.ports import Options, Said, Serving

READY_S = 0.25  # how soon the readiness file tells of a change

Beside = Callable[["Following"], Coroutine[Any, Any, None]]


def follow_stacks(
    ending: Ending,
    sources: Sequence[Path],
    serving: Serving,
    options: Options,
    tell: Callable[[Said], None],
    beside: Sequence[Beside] = (),
) -> int:
    """Follow the sources until a signal ends it. ``beside``: what runs meanwhile; where one of them fails, so does all."""
    from serveconf.watch.follower import FirstFailed, follow_one
    from serveconf.watch.following import Following

    note_own_output()

    async def work() -> None:
        following = Following(sources, serving, tell, options, follow_one)
        tasks = [asyncio.ensure_future(one(following)) for one in beside]
        tasks.append(asyncio.ensure_future(following.run()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    try:
        ending.until_told(work)
    except FirstFailed as failed:
        return exit_code_of_first(failed.outcome, failed.error)
    except AllTried:
        pass
    return 0


class AllTried(Exception):
    """Each file was tried once, and that is all that was wanted."""


def exit_code_of_first(outcome: Outcome | None, error: ServeconfError | None) -> int:
    """What a first try stands for, as apply would have ended."""
    from serveconf.watch.memory import Fate

    if outcome is not None and outcome.result:
        return exit_code_of(outcome.result)
    if outcome is not None and outcome.fate is Fate.PINNED:
        return 6
    if outcome is not None and error is None:
        return 0 if outcome.fate is Fate.SERVED else 3 if outcome.fate is Fate.REFUSED else 1
    return 6 if isinstance(error, Conflict) else 1


def readiness(file: Path) -> Beside:
    """Keeps a file there for as long as every stack serves as its file says."""
    try:
        file.unlink(missing_ok=True)  # as an earlier one, that was killed, has left it
        if not file.parent.is_dir():
            raise FileNotFoundError(2, "no such folder")
    except OSError as error:
        raise OperatorError(f"--ready-file {file}: {error.strerror}") from error
    with contextlib.suppress(
        OSError, OperatorError
    ):  # below an app_dir it is no code; a container may have a home that nobody writes to
        note_own_file(file)

    async def keep(following: Following) -> None:
        there = False
        try:
            while True:
                if following.ready != there:
                    there = following.ready
                    with contextlib.suppress(OSError):  # a disk that is full now may have room later
                        file.touch() if there else file.unlink(missing_ok=True)
                await asyncio.sleep(READY_S)
        finally:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)

    return keep


def once_settled(say: Callable[[], None]) -> Beside:
    """Calls ``say`` once each file's first try is over."""

    async def wait(following: Following) -> None:
        while not following.all_tried:
            await following.news.wait(following.news.count, 0.2)
        say()

    return wait


def found_specs(sources: Sequence[Path]) -> list[Path]:
    """The spec files that the sources hold now. Raises ServeconfError where there is none."""
    from serveconf.errors import AuthorError
    from serveconf.watch.sources import find_specs

    found = find_specs(sources)
    if not found.files:
        named = ", ".join(map(str, sources))
        raise AuthorError(f"there is no spec file (*.yaml, *.yml) in {named}", code="no_spec")
    return list(found.files)


def is_one_file(sources: Sequence[Path]) -> bool:
    """Whether a single file is all that is followed, so that its first failure is everything's."""
    return len(sources) == 1 and not sources[0].is_dir()


def shown_error(error: ServeconfError) -> dict[str, Any]:
    """An error as JSON logs have it."""
    from serveconf.spec.problems import SpecInvalid

    if isinstance(error, SpecInvalid):
        return {**error.as_json(), "problems": [problem.as_json() for problem in error.problems]}
    return {**error.as_json(), **({"problems": found} if (found := getattr(error, "problems", None)) else {})}
