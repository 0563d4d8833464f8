"""One file's text, and the places in it: bytes in; a ``Source`` out, or the problem why it is no text."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from serveconf.spec.problems import Position, Problem

MAX_BYTES = 1024 * 1024
_SOURCE_WIDTH = 400  # a longer line is not shown below a problem


@dataclass
class Source:
    """One file's text. Makes positions and problems of it."""

    file: str
    text: str
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.starts = [0, *(match.end() for match in re.finditer(r"\r\n|\n|\r", self.text))]

    def position(self, index: int) -> Position:
        """The line and column of a character."""
        line = bisect_right(self.starts, index)
        return Position(self.file, line, index - self.starts[line - 1] + 1)

    def line(self, number: int) -> str | None:
        """The text of a line, unless it is too long to show."""
        if not 1 <= number <= len(self.starts):
            return None
        end = self.starts[number] if number < len(self.starts) else len(self.text)
        line = self.text[self.starts[number - 1] : end].rstrip("\r\n")
        return line if len(line) <= _SOURCE_WIDTH else None

    def problem(self, at: Position, path: str, message: str, code: str, hint: str | None = None) -> Problem:
        """A problem at a place in this file."""
        return Problem(
            file=self.file, line=at.line, column=at.column, path=path, message=message, code=code, hint=hint,
            source=self.line(at.line),
        )  # fmt: skip


def decode(data: bytes, file: str) -> Source | Problem:
    """The text of a file: UTF-8 without control characters, of a sensible size."""
    if len(data) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 1024} KiB"
        return Problem(file=file, line=1, column=1, path="", message=message, code="too_large")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        source = Source(file, before)
        hint = "save the file as UTF-8" + (
            " (this looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        )
        return source.problem(source.position(len(before)), "", "the file is not UTF-8 text", "encoding", hint)
    source = Source(file, text)
    bad = re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]", text)
    if bad:
        message = f"control character U+{ord(bad[0]):04X} in the file"
        return source.problem(source.position(bad.start()), "", message, "control_character", "remove it")
    if bad := re.search(r"^%TAG", text, re.MULTILINE):
        return source.problem(source.position(bad.start()), "", "a %TAG directive is not allowed", "tag", "remove it")
    return source
