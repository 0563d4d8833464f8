"""Which paths below app_dir are left out of a code package: what can never be code, .gitignore, .serveconfignore.

``take_snapshot`` walks the tree and asks for every folder and file. In each folder both files may stand; a deeper file
wins over a higher one, as in git (gitignore(5)), and .serveconfignore wins over .gitignore, so that it can leave more
out and can bring back what git ignores (``!build/model.bin``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

GIT_FILE = ".gitignore"
OUR_FILE = ".serveconfignore"

_NEVER_FOLDERS = frozenset(
    {
        *(".git", ".hg", ".svn", "__pycache__", "node_modules", ".venv"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".tox", ".nox"),
    }
)


def never_belongs(name: str, *, folder: bool) -> bool:
    """Whether a name is left out whatever the ignore files say.

    Names that begin with ``..`` are a Kubernetes volume's own bookkeeping: the visible names link through them, and
    their timestamps would make a new package of the same content.
    """
    if name.startswith(".."):
        return True
    if folder:
        return name in _NEVER_FOLDERS
    return name == ".git" or name.endswith((".pyc", ".pyo"))


@dataclass(frozen=True)
class _Patterns:
    """The patterns of one ignore file, and the folder they are relative to."""

    folder: str
    spec: GitIgnoreSpec
    kept: tuple[str, ...] = ()  # the literal paths of its "!path" lines

    def verdict(self, path: str) -> bool | None:
        """True: leave it out. False: bring it back. None: not spoken of."""
        return self.spec.check_file(path[len(self.folder) + 1 :]).include

    def keeps_below(self, folder: str) -> bool:
        """Whether it brings back something inside ``folder``, which must then be walked even if it is ignored."""
        inside = folder[len(self.folder) + 1 :].rstrip("/") + "/"
        return any(path.startswith(inside) for path in self.kept)


@dataclass(frozen=True)
class IgnoreRules:
    """All patterns that hold inside one folder, from the outermost file to the innermost. Paths are absolute."""

    git: tuple[_Patterns, ...] = ()
    ours: tuple[_Patterns, ...] = ()

    def below(self, folder: str) -> IgnoreRules:
        """The rules inside ``folder``: these, and the ignore files that stand in it."""
        git, ours = _read(folder, GIT_FILE), _read(folder, OUR_FILE)
        if git is None and ours is None:
            return self
        return IgnoreRules(git=self.git + ((git,) if git else ()), ours=self.ours + ((ours,) if ours else ()))

    def leave_out(self, path: str, *, folder: bool) -> bool:
        """Whether ``path`` stays out of the package (for a folder: with all that is in it)."""
        asked = path + "/" if folder else path
        for patterns in (*reversed(self.ours), *reversed(self.git)):
            verdict = patterns.verdict(asked)
            if verdict is not None:
                return verdict and not (folder and any(ours.keeps_below(path) for ours in self.ours))
        return False


def rules_above(app_dir: Path) -> IgnoreRules:
    """What the .gitignore files above ``app_dir`` say, up to the root of its git repository.

    Where they ignore app_dir itself (an app that was built into ``build/``) they say nothing about what is in it.
    """
    root = next((folder for folder in (app_dir, *app_dir.parents) if (folder / ".git").exists()), None)
    if root is None or root == app_dir:
        return IgnoreRules()
    rules, folder = IgnoreRules(), root
    for part in app_dir.relative_to(root).parts:
        found = _read(str(folder), GIT_FILE)
        rules = IgnoreRules(git=rules.git + ((found,) if found else ()))
        folder = folder / part
        if rules.leave_out(str(folder), folder=True):
            return IgnoreRules()
    return rules


def _read(folder: str, name: str) -> _Patterns | None:
    try:
        with open(os.path.join(folder, name), encoding="utf-8-sig", errors="replace") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, IsADirectoryError):
        return None
    kept = tuple(line[1:].strip().lstrip("/") for line in lines if line.startswith("!"))
    try:
        spec = GitIgnoreSpec.from_lines(lines)
    except ValueError:  # git passes over a line that is no pattern, so one typo must not switch off the rest
        spec = GitIgnoreSpec.from_lines(line for line in lines if _is_pattern(line))
    return _Patterns(folder=folder, spec=spec, kept=kept)


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
