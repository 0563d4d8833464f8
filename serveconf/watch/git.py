"""A git repository as the source of stacks: what its branch says now, checked out into a folder of ours.

``git`` itself is used, with whatever credentials the user's git has; it never asks on the terminal. Neither a hook nor the
settings of the source are ever run: only its objects are taken over.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress

from serveconf.errors import OperatorError
from serveconf.home import home_folder
from serveconf.watch.address import PROTOCOLS, check_branch, parse_address
from serveconf.watch.file_lock import waited_for

log = logging.getLogger(__name__)

GIT_S = 120.0
GARBAGE_BYTES = 256_000_000  # of a repository's objects beyond those of the last clearance, before there is another one
FETCHED = "refs/serveconf/fetched"
_QUIET = (
    *("-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false", "-c", "core.logAllRefUpdates=false"),
    *("-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false", "-c", "advice.detachedHead=false"),
)


class Checkout:
    """One branch of one repository. ``folder`` holds its files after ``pull``."""

    def __init__(self, url: str, branch: str | None, *, verified: bool = False) -> None:
        """``verified``: only signed commits come into the folder, so who takes others has one of his own.

        Raises AuthorError where address or branch are none.
        """
        self.address = parse_address(url)
        self.branch = check_branch(branch) if branch is not None else None
        what = f"{self.address.url}\0{self.branch or 'HEAD'}" + ("\0verified" if verified else "")
        name = hashlib.sha256(what.encode()).hexdigest()[:12]
        self.folder = home_folder() / "sync" / name
        self.lock = self.folder.with_name(f"{name}.lock")  # shared by who reads the files
        self._fetching = self.folder.with_name(f"{name}.fetch.lock")
        self._child: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()
        self._cleared_bytes = 0  # what was left by the last clearance

    def pull(self) -> str:
        """Bring the folder to what the branch is now; returns the commit. Raises OperatorError with git's own words."""
        commit = self.fetch()
        self.check_out(commit)
        return commit

    def fetch(self) -> str:
        """Bring what the branch is now, beside the files; returns the commit. Raises OperatorError."""
        with waited_for(self._fetching, stopped=self._stopped.is_set):  # git would fail on the other's locks
            return self._fetch()

    @property
    def commit(self) -> str:
        """What the files are at, whoever has brought them there."""
        return self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")

    def _fetch(self) -> str:
        if not (self.folder / ".git" / "HEAD").is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--template=", ".")
        ref, before = self._ref(), self._fetched()
        try:
            self._git(
                *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"),
                *("--force", "--update-shallow", "--", self.address.url, f"{ref}:{FETCHED}"),
            )
        except OperatorError as error:
            if (
                self.branch is not None and "couldn't find remote ref" in error.message
            ):  # it went after it was looked up
                raise self._missing() from error
            raise
        if self._fetched() != before:
            self._clear()
        return self._git("rev-parse", "--verify", "--quiet", f"{FETCHED}^{{commit}}")

    def _fetched(self) -> str:
        """What was fetched last; empty before."""
        return self._git("for-each-ref", "--format=%(objectname)", FETCHED)

    def _clear(self) -> None:
        """Objects of former commits go when they have become many: git by itself keeps each for two weeks, whatever its size."""
        if self._object_bytes() - self._cleared_bytes <= GARBAGE_BYTES:
            return
        try:
            self._git("repack", "-a", "-d", "-q")
            self._git("prune", "--expire=now")
        except OperatorError as error:  # such as a disk that is full: what was fetched is there all the same
            if error.code != "git_failed":
                raise
            log.warning("a checkout's old objects stay", extra={"folder": str(self.folder), "why": error.message})
        self._cleared_bytes = self._object_bytes()

    def _object_bytes(self) -> int:
        counted = dict(line.split(": ", 1) for line in self._git("count-objects", "-v").splitlines() if ": " in line)
        return 1024 * (int(counted.get("size", 0)) + int(counted.get("size-pack", 0)))  # git tells KiB

    def check_out(self, commit: str) -> None:
        """Bring the files to that commit. What git does not know, such as what an app has written there, stays."""
        try:
            self._git("checkout", "--quiet", "--force", "--detach", commit, "--")
        except OperatorError:
            if self._stopped.is_set():
                raise
            (self.folder / ".git" / "index").unlink(missing_ok=True)  # as one that was killed has left it
            (self.folder / ".git" / "index.lock").unlink(missing_ok=True)
            self._git("checkout", "--quiet", "--force", "--detach", commit, "--")

    def verify(self, commit: str) -> None:
        """Raises OperatorError where neither the commit nor the tag that was fetched is signed by a key that git trusts here."""
        for command, what in (("verify-commit", commit), ("verify-tag", FETCHED)):
            try:
                self._git(command, what)
            except OperatorError as error:
                if error.code != "git_failed":
                    raise
            else:
                return
        raise OperatorError(
            f"commit {commit[:12]} is not signed by a key that is trusted here",
            hint="git verify-commit says more; keys: gpg --import, or gpg.ssh.allowedSignersFile",
            code="git_signature",
        )

    def submodules(self) -> list[str]:
        """The paths of what is only a link to a commit of another repository."""
        listed = self._git("ls-files", "--stage", "-z").split("\0")
        return [line.partition("\t")[2] for line in listed if line.startswith("160000 ")]

    def stop(self) -> None:
        """End what is running; nothing begins any more."""
        self._stopped.set()
        child = self._child
        if child is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ref(self) -> str:
        """The full name of the branch or tag, as the repository has it."""
        if self.branch is None:
            return "HEAD"
        wanted = (f"refs/heads/{self.branch}", f"refs/tags/{self.branch}")
        listed = self._git("ls-remote", "--quiet", "--", self.address.url, *wanted)
        names = {line.partition("\t")[2] for line in listed.splitlines()}
        for name in wanted:
            if name in names:
                return name
        raise self._missing()

    def _missing(self) -> OperatorError:
        return OperatorError(
            f"there is no branch or tag '{self.branch}' in {self.address.shown}", code="git_branch_missing"
        )

    def _git(self, *arguments: str) -> str:
        environment = {
            **os.environ,
            **self.address.environment(),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
            "GIT_LFS_SKIP_SMUDGE": "1",
            "LC_ALL": "C",
        }
        for name in (
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_EXTERNAL_DIFF",
        ):  # as a hook of the user's sets them
            environment.pop(name, None)
        command = ["git", "-C", str(self.folder), *_QUIET, *arguments]
        if self._stopped.is_set():
            raise OperatorError("interrupted", code="cancelled")
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,  # a Ctrl-C is ours to act on
            )
        except FileNotFoundError as error:
            raise OperatorError("git is not installed", code="git_missing") from error
        self._child = child
        try:
            out, err = child.communicate(timeout=GIT_S)
        except BaseException as error:  # Ctrl-C too: git and what it started must not stay
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            message = f"git {arguments[0]} of {self.address.shown} took longer than {GIT_S:g} s"
            raise OperatorError(message, code="git_failed") from None
        finally:
            self._child = None
        if self._stopped.is_set() and child.returncode != 0:
            raise OperatorError("interrupted", code="cancelled")
        if child.returncode != 0:
            why = _last_words(err).replace(self.address.url, self.address.shown)
            raise OperatorError(f"git {arguments[0]} of {self.address.shown} failed: {why}", code="git_failed")
        return out.strip()


def _last_words(said: str) -> str:
    """What git says was wrong."""
    lines = said.strip().splitlines() or ["it said nothing"]
    return next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
