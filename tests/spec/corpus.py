"""Reads the corpus: sections of a title, a YAML text and, behind ``---8<---``, the problems that it must give, all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from serveconf.spec.problems import Problem

FOLDER = Path(__file__).parent.parent / "corpus"
ENV = {
    "NAME": "shop",
    "EMPTY": "",
    "PORT": "8080",
    "BIG": "70000",
    "NO": "NO",
    "SECRET": "s3cr3t",
    "RATE": "0.5",
    "PREFIX": "/v2",
}
CUT = "---8<---"


@dataclass(frozen=True)
class Case:
    """One section."""

    title: str
    text: str
    expected: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.title


def cases(name: str) -> list[Case]:
    """The sections of a corpus file."""
    found = []
    for section in re.split(r"^=== ", (FOLDER / name).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, rest = section.partition("\n")
        text, _, expected = rest.partition(f"{CUT}\n")
        found.append(Case(title, text, tuple(expected.splitlines())))
    return found


def line(problem: Problem) -> str:
    """A problem as the corpus writes it."""
    path = f"{problem.path}: " if problem.path else ""
    hint = f" | {problem.hint}" if problem.hint else ""
    warning = "warning " if problem.severity == "warning" else ""
    return f"{problem.line}:{problem.column} {warning}{problem.code} {path}{problem.message}{hint}"
