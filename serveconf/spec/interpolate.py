"""Variables in one text: ``${VAR}``, ``${VAR:-default}``, ``${VAR:?message}`` and ``$$``. Anything else stays as it is.

As in a POSIX shell (XCU 2.6.2), ``:-`` and ``:?`` also apply to a variable that is set but empty. A default may hold variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_TEXT = 256 * 1024
_MAX_NESTING = 8
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Filled:
    """The text with its variables replaced, and the origin of what was put in: ``variable A``, ``the default of B``."""

    text: str
    origins: tuple[str, ...]


class CannotFill(ValueError):
    """A variable without a value, or a malformed reference."""

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.hint = message, code, hint


def fill(text: str, env: Mapping[str, str], depth: int = 0) -> Filled:
    """Replaces the variables. Raises ``CannotFill``."""
    if depth > _MAX_NESTING:
        raise CannotFill("variables are nested too deeply", code="interpolation")
    parts: list[str] = []
    origins: list[str] = []
    at = size = 0
    while (found := text.find("$", at)) >= 0:
        following = text[found + 1 : found + 2]
        piece, end = "$", found + 1
        if following == "$":
            end = found + 2
        elif following == "{":
            end = _end(text, found)
            filled = _variable(text[found + 2 : end - 1], env, depth)
            piece = filled.text
            origins += filled.origins
        parts += [text[at:found], piece]
        size += found - at + len(piece)
        if size > MAX_TEXT:
            raise CannotFill("the text becomes too long when its variables are filled in", code="too_large")
        at = end
    parts.append(text[at:])
    return Filled(text="".join(parts), origins=tuple(origins))


def _end(text: str, start: int) -> int:
    """The index behind the ``}`` that closes the ``${`` at ``start``."""
    depth, at = 1, start + 2
    while at < len(text):
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
            continue
        if text[at] == "}":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise CannotFill("'${' is never closed", code="interpolation", hint="write $${ for a literal '${'")


def _variable(body: str, env: Mapping[str, str], depth: int) -> Filled:
    match = _NAME.match(body)
    name = match[0] if match else ""
    operator, argument = body[len(name) : len(name) + 2], body[len(name) + 2 :]
    if not name or operator not in ("", ":-", ":?"):
        hint = "write ${NAME}, ${NAME:-default} or ${NAME:?message}, and $${ for a literal '${'"
        raise CannotFill("'${" + body[:40] + "}' is not a variable", code="interpolation", hint=hint)
    value = env.get(name)
    if value or (value is not None and not operator):
        return Filled(text=value, origins=(f"variable {name}",))
    if operator == ":-":
        inner = fill(argument, env, depth + 1)
        return Filled(text=inner.text, origins=(f"the default of {name}", *inner.origins))
    if operator == ":?":
        message = argument or "it is needed here"
        raise CannotFill(f"variable {name} is not set: {message}", code="unset_variable", hint=f"set {name}")
    raise CannotFill(
        f"variable {name} is not set", code="unset_variable", hint=f"set it, or write ${{{name}:-default}}"
    )
