"""Several readings as one spec's data: defaults filled in, included files merged, every path traceable to its file.

What a deployment says wins over the defaults of its file, those over the defaults of the file that includes it. Mappings
with fixed keys are merged key by key, everything else is taken whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from serveconf.spec.fields import Shape, fields_of
from serveconf.spec.models import DeploymentSpec
from serveconf.spec.problems import Broken, Problem, join, parent
from serveconf.spec.reading import Reading
from serveconf.spec.tree import MAX_NODES


@dataclass
class Part:
    """One file and the files that it includes."""

    reading: Reading
    parts: list[Part] = field(default_factory=list)

    def readings(self) -> Iterator[Reading]:
        """This file's, then those of what it includes."""
        yield self.reading
        for part in self.parts:
            yield from part.readings()


@dataclass
class Merged:
    """The spec's data, without ``include`` and ``defaults``, and where its parts came from."""

    root: Reading
    data: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, tuple[Reading, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    room: int = MAX_NODES  # values that defaults may still add
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)  # (file, path) of a default -> its values

    def locate(self, path: str) -> tuple[Reading, str]:
        """The file that says what stands at ``path``, and the path there."""
        at: str | None = path
        while at is not None:
            if at in self.origin:
                reading, own = self.origin[at]
                return reading, own + path[len(at) :]
            at = parent(at)
        return self.root, path

    def masks(self) -> dict[str, str]:
        """For each value that came from a variable: its path, and its text as written."""
        if not any(reading.masks for reading, _ in [(self.root, ""), *self.origin.values()]):
            return {}
        found: dict[str, str] = {}
        for path in _leaves(self.data, ""):
            reading, own = self.locate(path)
            if own in reading.masks:
                found[path] = reading.masks[own]
        return found


def _leaves(data: Any, path: str) -> Iterator[str]:
    match data:
        case dict():
            for key, value in data.items():
                yield from _leaves(value, join(path, key))
        case list():
            for index, value in enumerate(data):
                yield from _leaves(value, join(path, index))
        case _:
            yield path


def merge(part: Part) -> Merged:
    """One spec of a file and all that it includes."""
    merged = Merged(part.reading)
    for key, value in part.reading.data.items():
        if key not in ("include", "defaults", "deployments", "http_options"):
            merged.data[key] = value
    _take(part, merged, [])
    return merged


def _take(part: Part, merged: Merged, outer: list[Reading]) -> None:
    """Adds one file's part, then those of the files that it includes."""
    reading = part.reading
    layers = [reading, *outer]
    if "http_options" in reading.data:
        _take_options(reading, merged)
    own = reading.data.get("deployments")
    if isinstance(own, list):
        entries = merged.data.setdefault("deployments", [])
        for index, entry in enumerate(own):
            path = join("deployments", len(entries))
            merged.origin[path] = (reading, join("deployments", index))
            entries.append(_with_defaults(entry, layers, path, merged) if isinstance(entry, dict) else entry)
    elif "deployments" in reading.data:
        merged.data.setdefault("deployments", own)
    for child in part.parts:
        _take(child, merged, layers)


def _take_options(reading: Reading, merged: Merged) -> None:
    given = reading.data["http_options"]
    if not isinstance(given, dict):
        merged.data.setdefault("http_options", given)
        return
    options = merged.data.setdefault("http_options", {})
    if not isinstance(options, dict):
        return
    for key, value in given.items():
        path = join("http_options", key)
        if key not in options:
            options[key] = value
            merged.origin[path] = (reading, path)
        elif options[key] != value and not isinstance(value, Broken) and not isinstance(options[key], Broken):
            first, first_path = merged.locate(path)
            message = f"contradicts {place_seen_from(reading, first, first_path)}"
            merged.problems.append(reading.problem(path, message, "conflict", "one spec has one HTTP front"))


def place_seen_from(reading: Reading, other: Reading, path: str) -> str:
    """How a problem in one file names a place in the same or another one."""
    at = other.position(path)
    if at is None or not at.line:
        return path
    return f"line {at.line}" if other is reading else str(at)


def _with_defaults(entry: dict[str, Any], layers: list[Reading], path: str, merged: Merged) -> dict[str, Any]:
    entry = dict(entry)
    for reading in layers:
        defaults = reading.data.get("defaults")
        if not isinstance(defaults, dict):
            continue
        # A number of replicas and autoscaling exclude each other: the nearer one wins.
        settled = entry.get("autoscaling_config") is not None, "num_replicas" in entry
        for key, shape in ((key, shape) for key, shape in _OPTIONS.items() if key in defaults):
            if (key == "num_replicas" and settled[0]) or (key == "autoscaling_config" and settled[1]):
                continue
            _fill(entry, key, defaults[key], shape, join(path, key), (reading, join("defaults", key)), merged)
    return entry


def _fill(
    into: dict[str, Any], key: str, value: Any, shape: Shape, path: str, source: tuple[Reading, str], merged: Merged
) -> None:
    if key not in into:
        reading, own = source
        if (reading.file, own) not in merged.sizes:
            merged.sizes[reading.file, own] = sum(1 for _ in _leaves(value, "")) + 1
        merged.room -= merged.sizes[reading.file, own]
        if merged.room < 0:
            if not any(problem.code == "too_large" for problem in merged.problems):
                message = f"the defaults add more than {MAX_NODES} values to the deployments"
                merged.problems.append(reading.problem("defaults", message, "too_large"))
            return
        into[key] = value
        merged.origin[path] = source
    elif shape.model and isinstance(value, dict) and isinstance(into[key], dict):
        into[key] = dict(into[key])
        reading, own = source
        for name, inner in value.items():
            _fill(into[key], name, inner, shape.child(name), join(path, name), (reading, join(own, name)), merged)


_OPTIONS = {name: field.shape for name, field in fields_of(DeploymentSpec).items()}
