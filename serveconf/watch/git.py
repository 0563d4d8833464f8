"""A git repository as the source of a spec: what its branch says now, checked out into a folder of ours.

``git`` itself is used, with whatever credentials the user's git has; it never asks on the terminal.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from serveconf.errors import OperatorError
from serveconf.home import home_folder

GIT_S = 120.0


class Checkout:
    """One branch of one repository. ``folder`` holds its files after ``pull``."""

    def __init__(self, url: str, branch: str | None) -> None:
        self._url = str(Path(url).resolve()) if Path(url).is_dir() else url  # git runs in another folder
        self._branch = branch or "HEAD"
        name = hashlib.sha256(f"{self._url}\0{self._branch}".encode()).hexdigest()[:12]
        self.folder = home_folder() / "sync" / name

    def pull(self) -> str:
        """Bring the folder to what the branch is now; returns the commit. Raises OperatorError with git's own words."""
        if not (self.folder / ".git").is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet")
        self._git("fetch", "--quiet", "--depth", "1", "--", self._url, self._branch)
        self._git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
        return self._git("rev-parse", "HEAD")

    def _git(self, *arguments: str) -> str:
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        command = ["git", "-C", str(self.folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_S, env=environment, check=False)
        except FileNotFoundError as error:
            raise OperatorError("git is not installed", code="git_failed") from error
        except subprocess.TimeoutExpired as error:
            raise OperatorError(
                f"git {arguments[0]} of {self._url} took longer than {GIT_S:g} s", code="git_failed"
            ) from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            said = next((line for line in lines if line.startswith("fatal:")), lines[-1])
            raise OperatorError(f"git {arguments[0]} of {self._url} failed: {said}", code="git_failed")
        return done.stdout.strip()
