"""Which files of a snapshot make a deployment what it is, and the version that follows from them.

Two replicas with one version are interchangeable; a deployment whose version changes is rolled. ``plan.desired`` calls
both functions, with the modules that preflight saw the deployment import.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from serveconf.code.by_value import FOLDER as BY_VALUE
from serveconf.code.ignore import GIT_FILE, OUR_FILE
from serveconf.code.snapshot import Snapshot


def relevant_files(snapshot: Snapshot, modules: Iterable[str], exclude: Iterable[str] = ()) -> dict[str, str]:
    """The files whose change makes a deployment another one: path -> content hash.

    ``modules``: the Python files that it imports. With them go all files that are no Python (templates, weights,
    settings: nobody can tell who reads them), but not the ignore files, and ``exclude``, which holds the spec file
    itself: what it says is compared field by field. What a running app writes is not in the snapshot to begin with.
    """
    imported = set(modules)
    left_out = set(exclude)
    return {
        path: content
        for path, content in snapshot.files.items()
        if path in imported or (path not in left_out and _is_data(path))
    }


def _is_data(path: str) -> bool:
    name = path.rpartition("/")[2]
    if path.startswith(f"{BY_VALUE}/"):
        return False  # each is of one target, and told among its modules
    return not name.endswith((".py", ".pyi")) and name not in (GIT_FILE, OUR_FILE)


def base_of(version: str) -> str:
    """The version less its edition: what spec and code make of it."""
    return version.partition("+")[0]


def in_edition(version: str, edition: str) -> str:
    """The same version, to be run by new processes: an upgrade rolls what nobody has changed."""
    return f"{base_of(version)}+{edition}"


def edition_of(version: str) -> str:
    """Of serveconf, where an upgrade has made the version; else empty."""
    return version.partition("+")[2]


def version_of(spec_fields: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """A short hash of the fields of cost ``roll`` and the files: the same on every machine, in any order of keys."""
    content = json.dumps([dict(spec_fields), dict(files)], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:12]
