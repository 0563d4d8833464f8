"""Files that are no specs but what a spec can be made of: said once, with the command that does it."""

from __future__ import annotations

import re
from typing import NamedTuple

from serveconf.spec.problems import Problem
from serveconf.spec.source import Source
from serveconf.spec.tree import Entries, Items, Node, Parsed, Scalar

_ONE_APPLICATION = {"runtime_env", "route_prefix", "args", "host", "port", "deployments"}
_MANIFEST = re.compile(r"^kind:[ \t]*[\"']?RayService\b", re.MULTILINE)


class Foreign(NamedTuple):
    """Which key gives the file away, and what the file is."""

    key: str
    what: str


def foreign_problem(parsed: Parsed) -> Problem | None:
    """The one problem of a Ray Serve config or a RayService manifest; None for anything else."""
    source = parsed.source
    if isinstance(parsed.root, Entries):
        found = _kind_of(parsed.root)
        return _problem(source, found, parsed.root.entries[found.key][0].line) if found else None
    # several documents in one file, or templates in it: no tree, and yet it is plain what it is
    if parsed.problems and (match := _MANIFEST.search(source.text)):
        return _problem(source, _RAY_SERVICE, source.position(match.start()).line)
    return None


_RAY_SERVICE = Foreign("kind", "a RayService manifest of KubeRay")


def _kind_of(root: Entries) -> Foreign | None:
    keys = root.entries
    if _text(root, "kind") == "RayService":
        return _RAY_SERVICE
    if "applications" in keys and not _are_ours(root):
        return Foreign("applications", "a Ray Serve config")
    if "import_path" in keys and _ONE_APPLICATION & set(keys) and not _are_ours(root):
        return Foreign("import_path", "a Ray Serve config of the old form, with one application")
    return None


def _are_ours(root: Entries) -> bool:
    """Whether there are deployments of ours: each says what to import."""
    listed = root.entries.get("deployments")
    items = listed[1].items if listed and isinstance(listed[1], Items) else []
    return any(isinstance(one, Entries) and "import_path" in one.entries for one in items)


def _text(root: Entries, key: str) -> str | None:
    found: Node | None = root.entries[key][1] if key in root.entries else None
    return found.text if isinstance(found, Scalar) else None


def _problem(source: Source, found: Foreign, line: int) -> Problem:
    return Problem(
        file=source.file, line=line, column=1, path=found.key, message=f"this is {found.what}, not a serveconf spec",
        code="ray_serve", hint=f"'serveconf convert {source.file}' writes it as a spec", source=source.line(line),
    )  # fmt: skip
