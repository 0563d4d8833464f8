"""Problems as text with a caret, as the contract's JSON, as GitHub annotations, or as SARIF 2.1.0."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import Any, assert_never
from urllib.parse import quote

from serveconf.spec.codes import CODES
from serveconf.spec.problems import Problem


class ProblemFormat(StrEnum):
    """How ``validate`` writes what it found."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


_BOLD, _RED, _YELLOW, _CYAN, _GREEN, _OFF = "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[36m", "\x1b[1;32m", "\x1b[0m"


def render(problems: Sequence[Problem], form: ProblemFormat, *, color: bool = False) -> str:
    """The problems in one of the formats, without a newline at the end."""
    match form:
        case ProblemFormat.TEXT:
            return text(problems, color=color)
        case ProblemFormat.JSON:
            return json.dumps(json_document(problems), indent=2, ensure_ascii=False)
        case ProblemFormat.GITHUB:
            return "\n".join(_annotation(problem) for problem in problems)
        case ProblemFormat.SARIF:
            return json.dumps(sarif_log(problems), indent=2, ensure_ascii=False)
        case _:
            assert_never(form)


def is_ok(problems: Sequence[Problem]) -> bool:
    """No problem is an error."""
    return all(problem.severity != "error" for problem in problems)


def json_document(problems: Sequence[Problem]) -> dict[str, Any]:
    """The contract's form of ``validate -o json``."""
    return {"ok": is_ok(problems), "problems": [problem.as_json() for problem in problems]}


def text(problems: Sequence[Problem], *, color: bool = False) -> str:
    """One paragraph for each problem: place and message, the source line with a caret, the hint."""
    return "\n".join(_paragraph(problem, color) for problem in problems)


def _paragraph(problem: Problem, color: bool) -> str:
    def paint(style: str, words: str) -> str:
        return f"{style}{words}{_OFF}" if color and words else words

    place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    severity = paint(_YELLOW if problem.severity == "warning" else _RED, problem.severity)
    path = f"{_visible(problem.path)}: " if problem.path else ""
    head = f"{paint(_BOLD, _visible(place))}: " if place else ""
    lines = [f"{head}{severity}: {path}{_visible(problem.message)} {paint(_CYAN, f'[{problem.code}]')}"]
    if problem.source is not None and problem.line and problem.source.strip():
        lines.append(f"  {_visible(problem.source)}")
        lines.append(f"  {_blank(problem.source[: problem.column - 1])}{paint(_GREEN, '^')}")
    if problem.hint:
        first, *more = problem.hint.splitlines()
        lines.append(f"  {paint(_CYAN, 'hint:')} {_visible(first)}")
        lines += [f"        {_visible(line)}" for line in more]
    return "\n".join(lines)


def _visible(words: str) -> str:
    """The words without what would move a terminal's cursor or change its colours."""
    return "".join(
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode() for char in words
    )


def _blank(words: str) -> str:
    """Blanks as wide as the words are on a terminal."""
    return "".join(
        "\t" if char == "\t" else "  " if unicodedata.east_asian_width(char) in "WF" else "" if _joins(char) else " "
        for char in words
    )


def _joins(char: str) -> bool:
    return unicodedata.combining(char) > 0


def summary(files: int, problems: Sequence[Problem]) -> str:
    """The last line of the text format."""
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    if not problems:
        return f"{_count(files, 'file')}: no problems"
    parts = [_count(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
    return f"{_count(files, 'file')}: {', '.join(parts)}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _annotation(problem: Problem) -> str:
    """A workflow command, escaped as GitHub's documentation of workflow commands asks."""
    place = (
        {"file": problem.file, "line": problem.line, "col": problem.column} if problem.line else {"file": problem.file}
    )
    fields = ",".join(f"{key}={_property(str(value))}" for key, value in {**place, "title": problem.code}.items())
    path = f"{problem.path}: " if problem.path else ""
    hint = f"\n{problem.hint}" if problem.hint else ""
    return f"::{problem.severity} {fields}::{_data(f'{path}{problem.message}{hint}')}"


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")


def sarif_log(problems: Sequence[Problem]) -> dict[str, Any]:
    """A SARIF 2.1.0 log with one run."""
    from importlib import metadata  # only this format needs it

    codes = sorted({problem.code for problem in problems})
    driver = {
        "name": "serveconf",
        "version": metadata.version("serveconf"),
        "rules": [{"id": code, "name": code, "shortDescription": {"text": CODES.get(code, code)}} for code in codes],
    }
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_result(problem, codes.index(problem.code)) for problem in problems],
            }
        ],
    }


def _result(problem: Problem, rule: int) -> dict[str, Any]:
    path = f"{problem.path}: " if problem.path else ""
    hint = f" ({problem.hint})" if problem.hint else ""
    location: dict[str, Any] = {"artifactLocation": {"uri": _uri(problem.file)}}
    if problem.line:
        location["region"] = {"startLine": problem.line, "startColumn": max(problem.column, 1)}
    return {
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": "warning" if problem.severity == "warning" else "error",
        "message": {"text": f"{path}{problem.message}{hint}"},
        "locations": [{"physicalLocation": location}],
    }


def _uri(file: str) -> str:
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
