"""Which paths below app_dir are left out of a code package: what can never be code, what an app writes, .gitignore,
.serveconfignore.

``take_snapshot`` walks the tree and asks for every folder and file. In each folder both files may stand; a deeper file
wins over a higher one, as in git (gitignore(5)), and .serveconfignore wins over .gitignore, so that it can leave more
out and can bring back what git ignores (``!build/model.bin``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from serveconf.code.left_out import is_secret, is_volatile

if TYPE_CHECKING:
    from pathspec import Pattern

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
class _Line:
    """One pattern. What it says of a folder it does not say of what is inside: the walk comes there by itself.

    pathspec takes a pattern that matches a folder for one that matches all below, and so would bring back with ``!logs/``
    what another line leaves out inside of it; git does not.
    """

    pattern: Pattern
    leaves_out: bool  # False: it begins with "!" and brings back
    by_name: bool  # no slash but a last one: the name alone decides
    crosses: bool  # holds ``**``

    def matches(self, path: str) -> bool:
        """Whether it speaks of this path; that of a folder ends with ``/``."""
        parent, slash, _ = path.rstrip("/").rpartition("/")
        if self.by_name:
            return self.pattern.match_file(path[len(parent) + len(slash) :]) is not None
        if self.pattern.match_file(path) is None:
            return False
        return self.crosses or not slash or self.pattern.match_file(parent + "/") is None


@dataclass(frozen=True)
class _Patterns:
    """The patterns of one ignore file, the last first, and the folder they are relative to."""

    folder: str
    lines: tuple[_Line, ...]
    kept: tuple[str, ...]  # the literal paths of its "!path" lines

    def verdict(self, path: str) -> bool | None:
        """True: leave it out. False: bring it back. None: not spoken of."""
        asked = path[len(self.folder) + 1 :]
        return next((line.leaves_out for line in self.lines if line.matches(asked)), None)

    def keeps_below(self, folder: str) -> bool:
        """Whether it brings back something inside ``folder``."""
        inside = folder[len(self.folder) + 1 :].rstrip("/") + "/"
        return any(path.startswith(inside) for path in self.kept)


@dataclass(frozen=True)
class IgnoreRules:
    """All patterns that hold inside one folder, from the outermost file to the innermost. Paths are absolute."""

    git: tuple[_Patterns, ...] = ()
    ours: tuple[_Patterns, ...] = ()
    hidden: bool = False  # the folder is left out, but for what .serveconfignore brings back

    def below(self, folder: str) -> IgnoreRules:
        """The rules inside ``folder``: these, and the ignore files that stand in it."""
        git, ours = _read(folder, GIT_FILE), _read(folder, OUR_FILE)
        if git is None and ours is None:
            return self
        return replace(self, git=self.git + ((git,) if git else ()), ours=self.ours + ((ours,) if ours else ()))

    def enter(self, folder: str) -> IgnoreRules | None:
        """The rules to walk ``folder`` with; None: it is left out with all that is in it."""
        if not self.leave_out(folder + "/"):
            return replace(self, hidden=False) if self.hidden else self
        return replace(self, hidden=True) if any(ours.keeps_below(folder) for ours in self.ours) else None

    def brings_back(self, path: str) -> bool:
        """Whether .serveconfignore says by a line with ``!`` that ``path`` is code, whoever writes it."""
        verdicts = (patterns.verdict(path) for patterns in reversed(self.ours))
        return next((verdict for verdict in verdicts if verdict is not None), None) is False

    def leave_out(self, path: str) -> bool:
        """Whether ``path`` (of a folder, with ``/`` at its end) stays out of the package.

        What no pattern speaks of is left out where its name says that it is an app's data, or a secret.
        """
        verdict = self._verdict(path)
        if verdict is not None:
            return verdict
        return self.hidden or is_secret(path) or (not path.endswith("/") and is_volatile(path))

    def withholds(self, path: str) -> bool:
        """Whether ``path`` stays out for no reason but that it looks like a secret: who packs it should hear of it."""
        ours = path.endswith("/.serveconf/")  # init keeps the schema there: no news to anybody
        return not self.hidden and not ours and self._verdict(path) is None and is_secret(path)

    def keeps(self, path: str) -> bool:
        """Whether a line says that ``path`` belongs to the code."""
        return self._verdict(path) is False

    def _verdict(self, path: str) -> bool | None:
        git = () if self.hidden else self.git
        verdicts = (patterns.verdict(path) for patterns in reversed(git + self.ours))
        return next((verdict for verdict in verdicts if verdict is not None), None)


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
        if rules.leave_out(f"{folder}/"):
            return IgnoreRules()
    return rules


def _read(folder: str, name: str) -> _Patterns | None:
    try:
        with open(os.path.join(folder, name), encoding="utf-8-sig", errors="replace") as file:
            said = [_inside_only(line) for line in file.read().splitlines()]
    except (FileNotFoundError, IsADirectoryError):
        return None
    lines = [line for text in said if (line := _line(text)) is not None]
    kept = tuple(text[1:].strip().lstrip("/") for text in said if text.startswith("!"))
    return _Patterns(folder=folder, lines=tuple(reversed(lines)), kept=kept)


def _line(text: str) -> _Line | None:
    """One line as a pattern; None for a comment, and for what is no pattern: git passes over that."""
    from pathspec import GitIgnoreSpec  # takes as long to import as a small folder to be packed; many have no such file

    try:
        (pattern,) = GitIgnoreSpec.from_lines([text]).patterns
    except ValueError:
        return None
    if pattern.include is None:
        return None
    body = text.removeprefix("!").rstrip().rstrip("/").removeprefix("**/")
    return _Line(pattern=pattern, leaves_out=bool(pattern.include), by_name="/" not in body, crosses="**" in body)


def _inside_only(line: str) -> str:
    """``a/**`` is what is in ``a`` and not ``a`` itself, which git walks into; pathspec would take it for both."""
    return f"{line.rstrip()}/*" if line.rstrip().endswith("/**") else line
