"""A git branch as the source of stacks: pulled again and again, and never changed while somebody reads it.

``keep_pulling`` runs beside a watcher of the checkout. What it meets (nobody answers, the branch or the path is not there, a
commit is not signed) is a state: told once, nothing is changed, looked at again.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from serveconf.errors import AuthorError, OperatorError, ServeconfError
from serveconf.reconcile.origin import git_source
from serveconf.watch.following import Following
from serveconf.watch.git import Checkout
from serveconf.watch.look import Look
from serveconf.watch.memory import Outcome
from serveconf.watch.ports import Said
from serveconf.watch.serving import ControlApi

WEBHOOK_S = 1.0  # between two questions whether a webhook was called
SPREAD = 0.1  # of the interval: many that follow one repository do not ask in step
LFS = b"version https://git-lfs.github.com/spec/"
LFS_MOST = 1024  # a pointer is smaller
NAMED = 3


class Repository:
    """A checkout, and the file or folder in it that is meant."""

    def __init__(self, checkout: Checkout, path: str, *, verify: bool = False) -> None:
        self.checkout = checkout
        self.path = path
        self.commit = ""
        self._verify = verify

    @property
    def target(self) -> Path:
        """The spec file, or the folder of them."""
        return self.checkout.folder / self.path

    def fetch(self) -> str:
        """What the branch is at now. Raises ServeconfError, also where that is not signed and should be."""
        commit = self.checkout.fetch()
        if self._verify and commit != self.commit:
            self.checkout.verify(commit)
        return commit

    def check_out(self, commit: str) -> None:
        """Bring the files to that commit. Raises ServeconfError where what is meant is not in it."""
        self.checkout.check_out(commit)
        self.commit = commit
        folder = self.checkout.folder.resolve()
        real = self.target.resolve()
        if not real.is_relative_to(folder) or real.is_relative_to(folder / ".git"):
            raise AuthorError(f"--path {self.path} leads out of the repository", code="git_path")
        if not real.exists():
            raise OperatorError(f"there is no {self.path} in commit {commit[:12]}", code="git_path_missing")

    def source_of(self, look: Look) -> dict[str, Any]:
        """What an apply is told of where it came from."""
        path = os.path.relpath(os.path.realpath(look.file), self.checkout.folder.resolve())
        return {
            "commit": self.checkout.commit,
            "source": git_source(self.checkout.address.shown, self.checkout.branch, path),
        }

    def check_whole(self, look: Look) -> None:
        """Raises AuthorError where a part of the code lies elsewhere: in a submodule, or with Git LFS."""
        if look.loaded is None or look.snapshot is None:
            return
        folder, app_dir = self.checkout.folder.resolve(), look.loaded.app_dir.resolve()
        if not app_dir.is_relative_to(folder) or app_dir.is_relative_to(folder / ".git"):
            raise AuthorError(
                f"app_dir {look.loaded.spec.app_dir} leads out of the repository",
                hint="what a branch says is served with the branch's own code, and nothing else of this machine",
                code="git_app_dir",
            )
        modules = [
            path
            for path in self.checkout.submodules()
            if os.path.relpath(folder / path, app_dir) in look.snapshot.folders
        ]
        if modules:
            raise AuthorError(
                f"{_named(modules)} is a submodule: sync does not fetch those",
                hint="keep the code in the repository, or leave it out in .serveconfignore",
                code="git_submodule",
            )
        pointers = [path for path in look.snapshot.files if _is_pointer(app_dir / path)]
        if pointers:
            raise AuthorError(
                f"{_named(pointers)} is a Git LFS pointer: sync does not fetch what it stands for",
                hint="load it at start from where models lie, or leave it out in .serveconfignore",
                code="git_lfs",
            )


class FromGit(ControlApi):
    """Applies what is in a repository; each revision says from which commit it came."""

    def __init__(self, repository: Repository, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, more=repository.source_of, **options)
        self._repository = repository

    def apply(self, look: Look, *, first: bool, live: Callable[[], None]) -> Outcome:
        """As the file says, if the commit holds all of it."""
        self._repository.check_whole(look)
        return super().apply(look, first=first, live=live)

    def is_own_source(self, source: str) -> bool:
        """Whether it is of this repository, branch and path."""
        checkout, path = self._repository.checkout, os.path.normpath(self._repository.path)
        own = git_source(checkout.address.shown, checkout.branch, "")
        return source.startswith(own) and _is_below(source.removeprefix(own), path)


async def keep_pulling(
    repository: Repository,
    following: Following,
    tell: Callable[[Said], None],
    *,
    interval_s: float,
    called: asyncio.Event | None = None,
) -> None:
    """Until it is cancelled. ``called``: somebody says that there is something new; it is looked at once, then."""
    called = called or asyncio.Event()
    pull = _Pulling(repository, tell)
    try:
        async with following.gate.changing():
            await pull.until_good(interval_s)
        while True:
            following.news.ring()
            with suppress(TimeoutError):
                async with asyncio.timeout(_spread(interval_s)):
                    await called.wait()
            called.clear()
            commit = await pull.fetched()
            if commit is None or commit == repository.commit:
                continue
            async with following.gate.changing():
                if not await pull.brought(commit):
                    await pull.until_good(interval_s)
    finally:
        repository.checkout.stop()


async def hear_webhook(calls: Callable[[], int], called: asyncio.Event) -> None:
    """Sets ``called`` whenever the count of a webhook's calls is another one. Who does not answer is asked again.

    Calls before the first answer count, too: one of them may have come after the first look.
    """
    known = 0
    while True:
        with suppress(ServeconfError):
            count = await asyncio.to_thread(calls)
            if count != known:
                called.set()
            known = count
        await asyncio.sleep(WEBHOOK_S)


class _Pulling:
    """Says each state once."""

    def __init__(self, repository: Repository, tell: Callable[[Said], None]) -> None:
        self._repository = repository
        self._tell = tell
        self._said = ""  # what is wrong
        self._is_away = False  # … with the repository or the branch; else with what a commit holds

    async def until_good(self, interval_s: float) -> None:
        """Look again and again until the files may be read."""
        while True:
            commit = await self.fetched()
            if commit is not None and await self.brought(commit):
                return
            await asyncio.sleep(_spread(interval_s))

    async def fetched(self) -> str | None:
        """What the branch is at; None where that can't be told."""
        try:
            commit = await asyncio.to_thread(self._repository.fetch)
        except ServeconfError as error:
            self._is_away = True
            self._wrong(error)
            return None
        if self._is_away:
            self._is_away, self._said = False, ""
            self._tell(Said(kind="commit", message="the repository and the branch are there again"))
        return commit

    async def brought(self, commit: str) -> bool:
        """Whether the files are at that commit, and may be read."""
        try:
            await asyncio.to_thread(self._repository.check_out, commit)
        except ServeconfError as error:
            self._wrong(error)
            return False
        self._said = ""
        self._tell(Said(kind="commit", message=f"commit {commit[:12]}", data={"commit": commit}))
        return True

    def _wrong(self, error: ServeconfError) -> None:
        if error.message != self._said:
            self._said = error.message
            self._tell(Said(kind="waiting", message="nothing is changed; looking again", error=error))


def _spread(interval_s: float) -> float:
    return interval_s * random.uniform(1 - SPREAD, 1 + SPREAD)


def _is_pointer(file: Path) -> bool:
    try:
        if file.stat().st_size > LFS_MOST:
            return False
        with open(file, "rb") as stream:
            return stream.read(len(LFS)) == LFS
    except OSError:
        return False


def _is_below(path: str, folder: str) -> bool:
    return folder == "." or path == folder or path.startswith(f"{folder}/")


def _named(paths: Iterable[str]) -> str:
    found = sorted(paths)
    more = f" (and {len(found) - NAMED} more)" if len(found) > NAMED else ""
    return f"{', '.join(found[:NAMED])}{more}"
