"""Aligned and coloured text for the views of plan, status and apply."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_STYLE = re.compile(r"\x1b\[[0-9;]*m")
Color = Literal[
    "red", "green", "yellow", "blue", "magenta", "cyan", "bright_red", "bright_green", "bright_cyan", "bright_magenta"
]
_COLORS: dict[Color, int] = {
    "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36,  # ECMA-48 §8.3.117
    "bright_red": 91, "bright_green": 92, "bright_cyan": 96, "bright_magenta": 95,  # aixterm's, which terminals took over
}  # fmt: skip
_LEAST_ROOM = 24  # columns; a text that would have less of them hangs further to the left


@dataclass(frozen=True)
class Cell:
    """A piece of text and its colour."""

    text: str
    color: Color | None = None
    dim: bool = False


def columns(rows: Sequence[Sequence[Cell]], *, color: bool, indent: int = 2) -> list[str]:
    """One line for each row, every column as wide as its widest cell; the last one is as long as it likes."""
    texts = [[visible(cell.text) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for row, line in zip(rows, texts, strict=True):
        last = max((index for index, text in enumerate(line) if text), default=0)
        pieces = []
        for index, (cell, text, width) in enumerate(zip(row, line, widths, strict=True)):
            padding = " " * (width - len(text)) if index < last else ""
            pieces.append(paint(text, cell.color, dim=cell.dim, on=color) + padding)
        lines.append(" " * indent + "  ".join(pieces[: last + 1]))
    return lines


def folded(line: str, width: int | None, hang: int) -> list[str]:
    """A line that is too long for ``width`` as several, between words; what goes on begins at column ``hang``.

    A word that is longer than a line stays whole. No width: a file or a pipe, where a line is a line.
    """
    if width is None or _length(line) <= width:
        return [line]
    hang = hang if width - hang >= _LEAST_ROOM else 8
    lines = [""]
    empty = True  # the last of them, but for its indent
    for piece in re.split(r"(?<=\S)(?= )", line):
        if not empty and _length(lines[-1]) + _length(piece) > width:
            lines.append(" " * hang)
            piece, empty = piece.lstrip(" "), True
        lines[-1] += piece
        empty = empty and not piece.strip()
    return lines


def _length(text: str) -> int:
    return len(_STYLE.sub("", text))


def paint(text: str, color: Color | None = None, *, bold: bool = False, dim: bool = False, on: bool) -> str:
    """``text`` in colour, where colours are ``on``."""
    if not on or not text or not (color or bold or dim):
        return text
    codes = (*((_COLORS[color],) if color else ()), *((1,) if bold else ()), *((2,) if dim else ()))
    return "".join(f"\x1b[{code}m" for code in codes) + text + "\x1b[0m"


def visible(text: str) -> str:
    """``text`` without what would move a terminal's cursor: names and messages come from users and their code."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def count(number: int, noun: str) -> str:
    """``1 replica``, ``2 replicas``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def scaled(scaling: Mapping[str, Any]) -> str:
    """``3 of 1 to 8 replicas: as many as the load asks for``, of a deployment whose number follows the load."""
    return f"{scaling['desired']} of {scaling['min']} to {scaling['max']} replicas: {scaling['reason']}"
