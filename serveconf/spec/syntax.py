"""Says in an author's words what the YAML parser could not read: its error in; place, message and hint out."""

from __future__ import annotations

import re

import yaml

_BACKSLASH = "use single quotes, or write '\\\\' for a backslash"
_TABLE: tuple[tuple[str, bool, str, str | None], ...] = (
    # what the parser said, point at where the construct began, message, hint
    ("mapping values are not allowed", False, "a ':' is not expected here", "quote text that holds ': ', and check the indentation"),
    ("found unexpected end of stream", True, "this quoted text is never closed", None),
    ("expected ',' or ']'", True, "this '[' is never closed, or a ',' is missing", None),
    ("expected ',' or '}'", True, "this '{' is never closed, or a ',' is missing", None),
    ("found unknown escape", False, "unknown escape in double-quoted text", _BACKSLASH),
    ("expected escape sequence", False, "incomplete escape in double-quoted text", _BACKSLASH),
    ("hexdecimal", False, "incomplete escape in double-quoted text", _BACKSLASH),
    ("invalid Unicode character escape", False, "this escape is half a character", "write the character, or \\U and eight digits"),
    ("could not find expected ':'", True, "this key has no ':' behind it", None),
    ("did not find expected key", False, "the indentation does not fit the lines above", None),
    ("did not find expected '-' indicator", False, "the indentation does not fit the lines above", None),
    ("block sequence entries are not allowed", False, "a list item is not expected here", "begin the list on its own line"),
    ("alphabetic or numeric character", False, "'&' and '*' must be followed by a name", "quote text that begins with '&' or '*'"),
    ("did not find expected node content", False, "a value is missing here", None),
    ("expected <document start>", False, "the document has ended before this", "check the indentation of the lines above"),
    ("mapping keys are not allowed", False, "a '?' is not expected here", "quote text that begins with '? '"),
    ("directive", False, "this line is read as a YAML directive", "quote text that begins with '%'"),
)  # fmt: skip


def explain_syntax(error: yaml.YAMLError, text: str) -> tuple[int, str, str | None]:
    """Index into the text, message, hint."""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    context = getattr(error, "context_mark", None)
    index = min(mark.index if mark else 0, len(text))
    if "cannot start any token" in problem and text[index : index + 1]:
        return index, *_bad_character(text, index)
    start = text.rfind("\n", 0, index) + 1
    line = text[start:].split("\n", 1)[0]
    if re.match(r" *\t", line):
        return start + line.index("\t"), *_TAB
    if "expected node content" in problem and not text[index:].strip():
        return index, "the file ends before a '[' or '{' is closed", None
    if "${" in line and re.search(r"expected ',' or '[]}]'", problem):
        return index, "a variable inside [ ] or { } must be quoted", 'write "${NAME}"'
    for said, at_start, message, hint in _TABLE:
        if said in problem:
            return min(context.index, len(text)) if at_start and context else index, message, hint
    return index, "this is not valid YAML", None


_TAB = ("a tab cannot indent", "indent with blanks")


def _bad_character(text: str, index: int) -> tuple[str, str | None]:
    if text[index] == "\t":
        return _TAB
    return f"text cannot begin with '{text[index]}'", "put the text in quotes"
