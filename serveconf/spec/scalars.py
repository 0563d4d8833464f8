"""What an unquoted YAML scalar means. Where YAML 1.1 and 1.2 readers disagree it means nothing, and must be quoted.

``resolve_plain(text)`` gives None, a bool, an int, a float or the text itself, or raises ``Ambiguous`` with the reason.
"""

from __future__ import annotations

import json
import re

from yaml.resolver import Resolver


class Ambiguous(ValueError):
    """The text has another type for another YAML reader. ``hint`` says what to write."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


_WORDS = {
    word: value
    for name, value in (("true", True), ("false", False), ("null", None))
    for word in (name, name.capitalize(), name.upper())
} | {"": None, "~": None}
_OLD_WORDS = {
    word: kind
    for name, kind in (("yes", "true"), ("on", "true"), ("no", "false"), ("off", "false"))
    for word in (name, name.capitalize(), name.upper())
}
# patterns are compiled when the first text needs them: most files hold few numbers, and no ambiguous one
_INT = r"[-+]?(0|[1-9][0-9]*)"
_FLOAT = r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"
_TO_SOME = "is a number to some YAML readers and text to others"
_AMBIGUOUS = (
    (r"[-+]?0[0-9_]+", "is an octal number in YAML 1.1 and a decimal one in YAML 1.2"),
    (r"[-+]?0[xob][0-9a-fA-F_]+", "is a number in hexadecimal, octal or binary"),
    (r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?", _TO_SOME),
    (r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9_]*)?", "is a base-60 number in YAML 1.1"),
)
_DATE = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(([Tt]|[ \t]+)[0-9].*)?"
_LONGEST_AMBIGUOUS = 100  # longer ones are text; it also keeps the patterns from backtracking for long
_NOT_FINITE = r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_INT64 = 2**63


def resolve_plain(text: str) -> object:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text in _OLD_WORDS:
        raise Ambiguous(f"{text} is a boolean in YAML 1.1", f"write {quoted(text)} for the text, or {_OLD_WORDS[text]}")
    if not text[0].isdigit() and text[0] not in "+-.=<":
        return text
    if text in ("=", "<<"):
        raise Ambiguous(f"{text} has a special meaning in YAML 1.1", f"write {quoted(text)}")
    if re.fullmatch(_INT, text):
        return _integer(text)
    if re.fullmatch(_FLOAT, text):
        return _finite(text)
    if re.fullmatch(_NOT_FINITE, text):
        raise Ambiguous(f"{text} is not a finite number", f"write {quoted(text)} if text is meant")
    if len(text) <= _LONGEST_AMBIGUOUS:
        for pattern, what in _AMBIGUOUS:
            if re.fullmatch(pattern, text):
                raise Ambiguous(f"{text} {what}", f"write {quoted(text)} for the text, or a plain decimal number")
        if re.fullmatch(_DATE, text):
            raise Ambiguous(f"{text} is a date in YAML 1.1", f"write {quoted(text)}")
        if _is_number_to_pyyaml(text):
            raise Ambiguous(f"{text} {_TO_SOME}", f"write {quoted(text)} for the text, or a plain decimal number")
    return text


def _is_number_to_pyyaml(text: str) -> bool:
    """Whether the most used YAML 1.1 reader takes it for a number, in one of the forms that nobody writes on purpose."""
    resolvers = Resolver.yaml_implicit_resolvers.get(text[0], ())
    return any(tag.endswith((":int", ":float")) and pattern.match(text) for tag, pattern in resolvers)


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 20 else _INT64
    if not -_INT64 <= value < _INT64:
        raise Ambiguous(f"{shorten(text)} does not fit 64 bits", "write it in quotes if text is meant")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Ambiguous(f"{shorten(text)} is too large for a number", "write it in quotes if text is meant")
    return value


def quoted(text: str) -> str:
    """The text as a double-quoted YAML scalar, for hints."""
    return json.dumps(shorten(text), ensure_ascii=False)


def shorten(text: str, limit: int = 60) -> str:
    """The text, cut where a message would become unreadable."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
