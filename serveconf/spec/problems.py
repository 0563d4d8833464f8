"""A problem of a spec file, with its place, and the error that carries all problems of one load.

Everything that reads a spec reports ``Problem``; the views turn it into text, JSON, annotations or SARIF.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from serveconf.errors import AuthorError


class Broken:
    """Stands where a value could not be read; whoever meets it says nothing more."""

    def __repr__(self) -> str:
        return "BROKEN"


BROKEN = Broken()


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; line and column count characters from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that its author must mend (``error``) or should look at (``warning``). Line 0: no place is known."""

    file: str
    line: int
    column: int
    path: str
    message: str
    code: str
    severity: str = "error"
    hint: str | None = None
    source: str | None = None  # the source line, for the caret

    def as_json(self) -> dict[str, object]:
        """The contract's form."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "code": self.code,
            "severity": self.severity,
            "hint": self.hint,
        }

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: " if self.file else ""
        path = f"{self.path}: " if self.path else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}{self.severity}: {path}{self.message} [{self.code}]{hint}"


class SpecInvalid(AuthorError):
    """The spec has problems. All of them are in ``problems``, in file order; ``files`` are those that were looked at."""

    code = "invalid_spec"

    def __init__(self, problems: Iterable[Problem], files: Iterable[Path] = ()) -> None:
        self.problems = tuple(problems)
        self.files = tuple(files)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def join(path: str, key: str | int) -> str:
    """The path of a child: ``a.b``, ``a[0]``, ``a["odd key"]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return f"{path}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{path}.{key}" if path else key


def parent(path: str) -> str | None:
    """The path of what holds ``path``; None for the whole document."""
    if not path:
        return None
    cut = max(path.rfind("["), path.rfind("."))
    if path.endswith('"]'):
        cut = path.rfind('["')
    return path[:cut] if cut > 0 else ""
