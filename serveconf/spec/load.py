"""A spec from a file or from Python data: read, check, merge, and one model at the end, or all problems together.

``load_file`` and ``load_mapping`` are what the rest of the project calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serveconf.spec.certificates import check_certificates
from serveconf.spec.check import check, not_supported
from serveconf.spec.envfile import read_env_file
from serveconf.spec.merge import Merged, Part, merge, place_seen_from
from serveconf.spec.models import Location, SpecFile, StackSpec, as_wire
from serveconf.spec.problems import Position, Problem, SpecInvalid, join
from serveconf.spec.reading import Reading, read_mapping, read_yaml
from serveconf.spec.rules import check_rules
from serveconf.spec.source import MAX_BYTES
from serveconf.spec.tree import MAX_NODES

MAX_FILES = 32
MAX_PROBLEMS = 200
UNSUPPORTED: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A valid spec, and what is known of how it was written."""

    spec: StackSpec
    file: Path
    app_dir: Path
    masks: Mapping[str, str]  # path of a value that came from a variable -> its text as written
    files: tuple[Path, ...]  # the file, what it includes, and the env files: what a change of must be looked at
    warnings: tuple[Problem, ...] = ()
    _merged: Merged = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The stack's."""
        return self.spec.name

    @property
    def front(self) -> tuple[str, int] | None:
        """Host and port that the proxies will listen on; None where there are to be none."""
        return front_of(self.spec)

    def as_said(self) -> dict[str, Any]:
        """The spec as plain data with only the keys that were said."""
        return as_wire(self.spec)

    def position(self, path: str) -> Position | None:
        """Where the value at ``path`` (``deployments[0].import_path``) stands; None where no file says so."""
        reading, own = self._merged.locate(path)
        at = reading.position(own)
        return at if at and at.line else None

    def problem(self, path: str, message: str, code: str, hint: str | None = None, severity: str = "error") -> Problem:
        """A problem that was found later (a failed import, say), at the value's place."""
        reading, own = self._merged.locate(path)
        return reading.problem(own, message, code, hint, severity)


def load_file(
    path: Path,
    *,
    env: Mapping[str, str],
    env_files: Iterable[Path] = (),
    unsupported: frozenset[str] = UNSUPPORTED,
) -> Loaded:
    """The spec of a YAML file. ``env`` wins over ``env_files``. Raises ``SpecInvalid`` with all problems in file order."""
    problems: list[Problem] = []
    variables: dict[str, str] = {}
    extra = tuple(env_files)
    for env_file in extra:
        values, found = read_env_file(env_file)
        variables |= values
        problems += found
    files = _Files({**variables, **env})
    part = files.read(path, str(path))
    return _finish(
        part, Path(os.path.abspath(path)), (*files.seen.values(), *map(_absolute, extra)), problems, unsupported
    )


def load_mapping(data: Mapping[str, Any], *, base_dir: Path, unsupported: frozenset[str] = UNSUPPORTED) -> Loaded:
    """The spec of Python data, values taken as they are. Raises ``SpecInvalid``; its problems carry a path and line 0."""
    reading = read_mapping(data, folder=base_dir)
    files = _Files(dict(os.environ))
    part = Part(reading, [files.read(*include) for include in files.includes(reading)])
    return _finish(part, _absolute(base_dir) / "<python>", tuple(files.seen.values()), [], unsupported)


def front_of(spec: StackSpec) -> tuple[str, int] | None:
    """Host and port that the spec's proxies listen on; None where it has none."""
    http = spec.http_options
    return None if http.location is Location.NO_SERVER else (http.host, http.port)


def read_clean(data: bytes, *, env: Mapping[str, str]) -> tuple[StackSpec, dict[str, str]] | None:
    """The spec and the masks of a file that stands alone; of its ``app_dir`` nothing is known here.

    None where there is anything to say of it, a problem or a warning: that takes ``load_file``, at the file's own place.
    """
    reading = read_yaml(data, file="", folder=Path(), env=env)
    if reading.problems or "include" in reading.data or check(reading) or any(not_supported(reading, UNSUPPORTED)):
        return None
    merged = merge(Part(reading))
    if merged.problems or _names_certificates(merged.data) or any(check_rules(merged.data)):
        return None
    return SpecFile.model_validate(merged.data).stack, merged.masks()


def _names_certificates(data: Mapping[str, Any]) -> bool:
    """Whether files that lie where the spec does have to be looked at."""
    http = data.get("http_options")
    return isinstance(http, Mapping) and any(key.startswith("ssl_") for key in http)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


class _Files:
    """Reads a file and those that it includes, within limits on their number and size."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.seen: dict[Path, Path] = {}  # real path -> absolute path
        self.bytes = self.values = 0

    def read(self, path: Path, shown: str) -> Part:
        """The file's part. What cannot be read gives a part with the problem alone."""
        real = Path(os.path.realpath(path))  # also of a link that leads to itself
        self.seen[real] = _absolute(path)
        try:
            data = read_bytes(path)
        except OSError as error:
            reading = Reading(shown, path.parent)
            message = f"cannot be read: {error.strerror or error}"
            reading.problems.append(reading.problem("", message, "file"))
            return Part(reading)
        reading = read_yaml(data, file=shown, folder=path.parent, env=self.env)
        self.bytes += len(data)
        self.values += len(reading.value_at)
        return Part(reading, [self.read(*include) for include in self.includes(reading)])

    def includes(self, reading: Reading) -> Iterator[tuple[Path, str]]:
        """The files to include, each with the name to show it by. Reports those that cannot be."""
        names = reading.data.get("include")
        for index, name in enumerate(names if isinstance(names, list) else []):
            if not isinstance(name, str) or not name:
                continue
            path = reading.folder / name
            if reason := self._refuse(path):
                reading.problems.append(reading.problem(join("include", index), reason, "include"))
            else:
                yield path, os.path.normpath(Path(reading.file).parent / name) if reading.file else name

    def _refuse(self, path: Path) -> str | None:
        try:
            real = Path(os.path.realpath(path))  # also of a link that leads to itself
            regular = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            return f"cannot be read: {error}"
        if real in self.seen:
            return "this file is included already, or includes this one"
        if not regular:
            return "no such file" if not path.exists() else "is not a file"
        if len(self.seen) >= MAX_FILES:
            return f"more than {MAX_FILES} files are included"
        if self.bytes > MAX_BYTES or self.values > MAX_NODES:
            return "the files together are too large"
        return None


def read_bytes(path: Path) -> bytes:
    """A regular file's bytes, one more than the limit at most. Anything else (a pipe would block) is an ``OSError``."""
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    if path.exists() and not path.is_file():
        raise OSError(None, "it is not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _finish(
    part: Part, file: Path, files: tuple[Path, ...], found: list[Problem], unsupported: frozenset[str]
) -> Loaded:
    """All checks, then the model."""
    readings = list(part.readings())
    for reading in readings:
        found += reading.problems
        if reading.data or not reading.problems:
            found += check(reading)
        found += not_supported(reading, unsupported)
    for reading in readings[1:]:
        for key in ("name", "app_dir", "standbys", "moved"):  # what would not be read there
            if key in reading.data:
                message = f"'{key}' does not belong in an included file"
                found.append(reading.problem(key, message, "misplaced_key", "set it in the including file", key=True))
    merged = merge(part)
    app_dir = _app_dir(part.reading, found)
    found += merged.problems
    files_named = check_certificates(merged.data.get("http_options"), part.reading.folder)
    for finding in (*check_rules(merged.data), *files_named):
        reading, own = merged.locate(finding.path)
        message = finding.message
        if finding.first:
            message = message.replace("{first}", place_seen_from(reading, *merged.locate(finding.first)))
        found.append(reading.problem(own, message, finding.code, finding.hint, finding.severity))
    problems = _in_file_order(found, [reading.file for reading in readings])
    if any(problem.severity == "error" for problem in problems):
        raise SpecInvalid(_limited(problems), files)
    return Loaded(
        spec=SpecFile.model_validate(merged.data).stack, file=file, app_dir=app_dir, masks=merged.masks(), files=files,
        warnings=problems, _merged=merged,
    )  # fmt: skip


def _app_dir(reading: Reading, found: list[Problem]) -> Path:
    """Where import paths start. A folder that is not there is a problem."""
    given = reading.data.get("app_dir", ".")
    if not isinstance(given, str) or not given:
        return reading.folder
    try:
        folder = (reading.folder / given).resolve()
        if folder.is_dir():
            return folder
        message = f"{given} is not a folder" if folder.exists() else f"there is no folder {given}"
    except (OSError, ValueError, RuntimeError) as error:
        message = f"cannot be read: {error}"
    if "app_dir" in reading.origins:
        message = f"there is no such folder (the text comes from {reading.origins['app_dir']})"
    hint = "'~' is not expanded; write ${HOME}" if given.startswith("~") else "it is relative to this file's folder"
    found.append(reading.problem("app_dir", message, "app_dir", hint))
    return reading.folder


def _in_file_order(problems: Iterable[Problem], files: list[str]) -> tuple[Problem, ...]:
    order = {name: index for index, name in enumerate(files)}
    unique = {
        (p.file, p.line, p.column, p.code, p.message, p.path if not p.line else ""): p for p in reversed(list(problems))
    }
    return tuple(sorted(unique.values(), key=lambda p: (order.get(p.file, -1), p.line, p.column)))


def _limited(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """The first problems; a file that is wrong throughout is not worth more."""
    if len(problems) <= MAX_PROBLEMS:
        return problems
    last = problems[MAX_PROBLEMS - 1]
    message = f"and {len(problems) - MAX_PROBLEMS} more problems"
    rest = Problem(
        file=last.file, line=last.line, column=last.column, path="", message=message, code="too_many_problems"
    )
    return (*problems[:MAX_PROBLEMS], rest)
