"""One file, or one mapping, as typed plain data with the place of every value.

In: bytes or Python data. Out: a ``Reading`` whose ``data`` holds JSON values, with ``BROKEN`` where a problem was already
reported. Variables are filled in here, by the type of the field that they stand in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serveconf.spec.fields import SPEC_FILE, Shape
from serveconf.spec.foreign import foreign_problem
from serveconf.spec.interpolate import CannotFill, fill
from serveconf.spec.problems import BROKEN, Broken, Position, Problem, join, parent
from serveconf.spec.scalars import Ambiguous, resolve_plain
from serveconf.spec.source import Source
from serveconf.spec.tree import MAX_DEPTH, Entries, Items, Node, Scalar, parse

_MAX_FILLED = 8 * 1024 * 1024  # characters that variables may add to one file


@dataclass
class Reading:
    """What one file says. Paths in it are the file's own."""

    file: str  # as shown in problems; empty for Python data
    folder: Path
    data: dict[str, Any] = field(default_factory=dict)
    source: Source | None = None
    value_at: dict[str, Position] = field(default_factory=dict)
    key_at: dict[str, Position] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)  # path -> the text with its variables
    origins: dict[str, str] = field(default_factory=dict)  # path -> where a filled-in text came from
    texts: dict[str, str] = field(default_factory=dict)  # path -> text of an unquoted scalar
    problems: list[Problem] = field(default_factory=list)

    def position(self, path: str, *, key: bool = False) -> Position | None:
        """Where a value (or its key) stands; where what holds it stands, if it is not there itself."""
        at: str | None = path
        while at is not None:
            found = (self.key_at.get(at) if key else None) or self.value_at.get(at)
            if found:
                return found
            at, key = parent(at), False
        return None

    def problem(
        self, path: str, message: str, code: str, hint: str | None = None, severity: str = "error", *, key: bool = False
    ) -> Problem:
        """A problem of the value at ``path``, or of its key."""
        at = self.position(path, key=key) or Position(self.file, 1 if self.source else 0, 1 if self.source else 0)
        return Problem(
            file=self.file, line=at.line, column=at.column, path=path, message=message, code=code, severity=severity,
            hint=hint, source=self.source.line(at.line) if self.source else None,
        )  # fmt: skip


def read_yaml(data: bytes, *, file: str, folder: Path, env: Mapping[str, str]) -> Reading:
    """The file's data. A file that is no mapping, or another tool's, gives a problem and no data."""
    parsed = parse(data, file)
    if foreign := foreign_problem(parsed):
        return Reading(file, folder, source=parsed.source, problems=[foreign])
    reading = Reading(file, folder, source=parsed.source, problems=parsed.problems)
    match parsed.root:
        case Entries() as root:
            reading.data = _Typer(reading, env).mapping(root, SPEC_FILE, "")
        case None | Scalar(text="", plain=True):
            if not reading.problems:
                reading.problems.append(reading.problem("", "the file is empty", "empty", "begin with 'deployments:'"))
        case Scalar(broken=True):
            pass
        case other:
            reading.value_at[""] = other.at
            message = "a spec is a mapping of keys to values"
            reading.problems.append(reading.problem("", message, "type", "begin with 'deployments:'"))
    return reading


class _Typer:
    """Turns nodes into data, guided by the shape of the place where they stand."""

    def __init__(self, reading: Reading, env: Mapping[str, str]) -> None:
        self.reading = reading
        self.env = env
        self.filled = 0

    def value(self, node: Node, shape: Shape, path: str) -> Any:
        self.reading.value_at[path] = node.at
        match node:
            case Scalar():
                return self.scalar(node, shape, path)
            case Items(items=items):
                item = shape.item or Shape(kinds=frozenset({"any"}))
                return [self.value(child, item, join(path, i)) for i, child in enumerate(items)]
            case Entries():
                return self.mapping(node, shape, path)

    def mapping(self, node: Entries, shape: Shape, path: str) -> dict[str, Any]:
        self.reading.value_at[path] = node.at
        data: dict[str, Any] = {}
        for key, (at, child) in node.entries.items():
            here = join(path, key)
            self.reading.key_at[here] = at
            unknown = shape.model is not None and key not in shape.fields
            data[key] = BROKEN if unknown else self.value(child, shape.child(key), here)
        return data

    def scalar(self, node: Scalar, shape: Shape, path: str) -> Any:
        if node.broken:
            return BROKEN
        text = node.text
        if "$" in text:
            try:
                filled = fill(text, self.env)
            except CannotFill as error:
                return self.broken(path, error.message, error.code, error.hint)
            self.filled += len(filled.text)
            if self.filled > _MAX_FILLED:
                return self.broken(path, "variables make this file too large", "too_large", None)
            if filled.origins:
                self.reading.masks[path] = text
                self.reading.origins[path] = " and ".join(dict.fromkeys(filled.origins))
                return self.filled_in(filled.text, node.plain, shape, path)
            text = filled.text
        if not node.plain:
            return text
        self.reading.texts[path] = text
        try:
            return resolve_plain(text)
        except Ambiguous as error:
            return self.broken(path, error.message, "ambiguous", error.hint)

    def filled_in(self, text: str, plain: bool, shape: Shape, path: str) -> Any:
        """A text from a variable takes the type of its field; where anything may stand, quotes make it a string."""
        kinds = shape.kinds
        if "any" in kinds and not plain:
            return text
        if "null" in kinds and text in ("", "null", "~") and (plain or "string" not in kinds):
            return None
        if not kinds & {"any", "integer", "number", "boolean"}:
            return text
        try:
            value = resolve_plain(text if "any" in kinds else text.strip())
        except Ambiguous:
            if "string" in kinds:
                return text
            message = f"the text from {self.reading.origins[path]} means different things to different YAML readers"
            return self.broken(path, message, "ambiguous", f'write "{self.reading.masks[path][:60]}" for the text')
        return value if "any" in kinds or _kind(value) & kinds else text

    def broken(self, path: str, message: str, code: str, hint: str | None) -> Broken:
        self.reading.problems.append(self.reading.problem(path, message, code, hint))
        return BROKEN


def _kind(value: object) -> set[str]:
    match value:
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number"}
        case _:
            return set()


def read_mapping(data: Mapping[str, Any], *, folder: Path) -> Reading:
    """Python data as a reading: the values as they are, if they are plain data."""
    reading = Reading("", folder)
    reading.data = _plain(data, "", 0, reading)
    return reading


def _plain(value: Any, path: str, depth: int, reading: Reading) -> Any:
    """The value with only dict, list, str, int, float, bool and None in it."""
    if depth > MAX_DEPTH:
        problem = f"nested deeper than {MAX_DEPTH} levels", "too_deep"
    elif value is None or isinstance(value, (bool, str)):
        return value
    elif isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return int(value)
        problem = "does not fit 64 bits", "range"
    elif isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        problem = "must be a finite number", "range"
    elif isinstance(value, (list, tuple)):
        return [_plain(item, join(path, i), depth + 1, reading) for i, item in enumerate(value)]
    elif isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if not wrong:
            return {str(key): _plain(item, join(path, key), depth + 1, reading) for key, item in value.items()}
        problem = f"a key must be a string, not {type(wrong[0]).__name__}", "key_type"
    else:
        problem = f"must be plain data (as in JSON), not {type(value).__name__}", "type"
    reading.problems.append(reading.problem(path, *problem))
    return BROKEN
