"""What a stack's files say at one moment: the spec, the code, and where to watch for a change of either.

``key`` is all that counts: while it is the same there is nothing to do, whatever was touched, saved again or commented.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from serveconf.code.hashes import Hashes
from serveconf.code.snapshot import Snapshot, take_snapshot
from serveconf.errors import ServeconfError
from serveconf.spec.load import Loaded, load_file
from serveconf.spec.models import Location
from serveconf.spec.problems import SpecInvalid
from serveconf.submit import spec_as_sent
from serveconf.watch.places import Places, places_of

_SOURCE = (".py", ".pyi")
PARSED = 12  # files at most, to see whether a save is done


@dataclass(frozen=True, kw_only=True)
class Look:
    """One stack as its files say it. Without ``loaded`` and ``snapshot`` it can't be applied, and ``error`` says why."""

    file: Path
    key: str
    places: Places
    files: Mapping[str, str]  # every file that counts -> hash of its content
    loaded: Loaded | None = None
    snapshot: Snapshot | None = None
    error: ServeconfError | None = None
    half_written: bool = False  # it does not even parse: perhaps a save is not done yet

    @property
    def stack(self) -> str | None:
        """The stack's name, where that is known."""
        return self.loaded.spec.name if self.loaded else None

    @property
    def addresses(self) -> dict[str, str]:
        """Where its deployments answer, as seen from this machine."""
        if self.loaded is None or self.loaded.spec.http_options.location is Location.NO_SERVER:
            return {}
        http = self.loaded.spec.http_options
        host = (
            "127.0.0.1" if http.host in ("0.0.0.0", "::", "") else f"[{http.host}]" if ":" in http.host else http.host
        )
        front = f"{'https' if http.ssl_certfile else 'http'}://{host}:{http.port}"
        return {d.name: f"{front}{d.prefix}" for d in self.loaded.spec.deployments if d.prefix is not None}


def look_at(
    file: Path,
    *,
    env_files: Iterable[Path] = (),
    variables: Iterable[str] | None = None,
    hashes: Hashes | None = None,
    data: Iterable[str] = (),
    restless: frozenset[str] = frozenset(),
) -> Look:
    """Read everything that the stack is made of.

    ``variables``: names or patterns of what the environment may fill in; None: all of it. ``data``: files below app_dir that
    the running app writes; ``restless``: files whose change does not count just now.
    """
    try:
        loaded = load_file(file, env=_allowed(variables), env_files=tuple(env_files))
    except SpecInvalid as invalid:
        if variables is not None:
            invalid = _saying_what_is_allowed(invalid)
        return _invalid(file, invalid, env_files)
    try:
        snapshot = take_snapshot(loaded.app_dir, exclude=loaded.files, data=frozenset(data), hashes=hashes)
    except (ServeconfError, OSError) as error:
        shown = error if isinstance(error, ServeconfError) else ServeconfError(str(error), code="code_unreadable")
        said = _hashes_of(loaded.files)
        places = places_of(loaded.files, loaded.app_dir, ("",))
        key = _digest({**said, "\0error": shown.message})
        return Look(file=file, key=key, places=places, files=said, loaded=loaded, error=shown)
    files = dict(snapshot.files)
    rest = {path: content for path, content in files.items() if path not in restless}
    spec = json.dumps(spec_as_sent(loaded), sort_keys=True, default=str)
    key = _digest({**rest, "\0spec": spec, "\0app_dir": str(loaded.app_dir), "\0masks": repr(sorted(loaded.masks))})
    return Look(
        file=file,
        key=key,
        places=places_of(loaded.files, loaded.app_dir, snapshot.folders),
        files={**files, **_hashes_of(loaded.files)},
        loaded=loaded,
        snapshot=snapshot,
        half_written=_breaks(loaded.app_dir, snapshot, hashes),
    )


def _allowed(variables: Iterable[str] | None) -> Mapping[str, str]:
    if variables is None:
        return os.environ
    patterns = tuple(variables)
    return {name: value for name, value in os.environ.items() if any(fnmatchcase(name, one) for one in patterns)}


def _saying_what_is_allowed(invalid: SpecInvalid) -> SpecInvalid:
    """The same; of a variable that is not set, that it may be one that nobody has allowed."""
    problems = [
        replace(one, hint="name it with --env NAME, or set it in an --env-file: a branch may fill in nothing else")
        if one.code == "unset_variable"
        else one
        for one in invalid.problems
    ]
    return SpecInvalid(problems, invalid.files)


def _invalid(file: Path, invalid: SpecInvalid, env_files: Iterable[Path]) -> Look:
    files = tuple(invalid.files) or (Path(os.path.abspath(file)), *env_files)
    said = _hashes_of(files)
    key = _digest({**said, "\0problems": invalid.message})
    return Look(
        file=file, key=key, places=places_of(files, None, ()), files=said, error=invalid, half_written=True,
    )  # fmt: skip


def _hashes_of(files: Iterable[Path]) -> dict[str, str]:
    """What stands in them; what can't be read just now counts as such."""
    found = {}
    for file in files:
        try:
            found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            found[str(file)] = f"unreadable: {error.errno}"
    return found


def _breaks(app_dir: Path, snapshot: Snapshot, hashes: Hashes | None) -> bool:
    """Whether a Python file that was written a moment ago does not parse. Of many nobody is being edited: no look then."""
    if hashes is None:
        return False
    young = [path for path in snapshot.files if path.endswith(_SOURCE) and hashes.young(app_dir / path)]
    return len(young) <= PARSED and not all(_parses(app_dir / path) for path in young)


def _parses(file: Path) -> bool:
    try:
        compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    except OSError:
        return True
    return True


def changed_files(before: Look | None, after: Look) -> list[str]:
    """The names of the files that differ, shortest paths first; nothing where there is nothing to compare with."""
    if before is None:
        return []
    names = before.files.keys() | after.files.keys()
    if before.snapshot is None or after.snapshot is None:  # of the code nothing is known then
        names = {name for name in names if os.path.isabs(name)}
    changed = (name for name in names if before.files.get(name) != after.files.get(name))
    return sorted((os.path.relpath(n, after.file.parent) if os.path.isabs(n) else n for n in changed), key=len)


def _digest(parts: Mapping[str, str]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
