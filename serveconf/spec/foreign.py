"""Files that are no specs but what a spec can be made of: said once, with the command that does it."""

from __future__ import annotations

import re
from typing import NamedTuple

from serveconf.spec.problems import Problem
from serveconf.spec.source import Source
from serveconf.spec.tree import Entries, Items, Node, Parsed, Scalar

_OPTIONS = {"proxy_location", "http_options", "grpc_options", "logging_config"}  # of Ray Serve; we have one of them
_ONE_APPLICATION = {"runtime_env", "route_prefix", "args", "host", "port", "deployments"}
_MANIFEST = r"(?m)^kind:[ \t]*[\"']?RayService\b"


class Foreign(NamedTuple):
    """Which key gives the file away, and what the file is."""

    key: str
    what: str


def foreign_problem(parsed: Parsed) -> Problem | None:
    """The one problem of a Ray Serve config or a RayService manifest; None for anything else."""
    source = parsed.source
    if isinstance(parsed.root, Entries):
        found = _kind_of(parsed.root)
        if found is None:
            return None
        is_convertible = "Kubernetes" not in found.what or "serveConfigV2" in source.text
        return _problem(source, found, parsed.root.entries[found.key][0].line, is_convertible=is_convertible)
    # several documents in one file, or templates in it: no tree, and yet it is plain what it is
    if parsed.problems and (match := re.search(_MANIFEST, source.text)):
        return _problem(source, _RAY_SERVICE, source.position(match.start()).line)
    return None


_RAY_SERVICE = Foreign("kind", "a RayService manifest of KubeRay")


def _kind_of(root: Entries) -> Foreign | None:
    keys = root.entries
    if _text(root, "kind") == "RayService":
        return _RAY_SERVICE
    if {"apiVersion", "kind"} <= set(keys) and not _are_ours(root):
        return Foreign("kind", f"a Kubernetes manifest of kind {_text(root, 'kind') or '?'}")
    if "applications" in keys and not _are_ours(root):
        return Foreign("applications", "a Ray Serve config")
    if len(_OPTIONS & set(keys)) > 1 and "deployments" not in keys:
        theirs = next(key for key in keys if key in _OPTIONS and key != "http_options")
        return Foreign(theirs, "a Ray Serve config without applications")
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


def _problem(source: Source, found: Foreign, line: int, *, is_convertible: bool = True) -> Problem:
    hint = f"'serveconf convert {source.file}' writes it as a spec"
    if not is_convertible:
        hint = "a spec says what is served and begins with 'deployments:'; 'serveconf init' writes a first one"
    return Problem(
        file=source.file, line=line, column=1, path=found.key, message=f"this is {found.what}, not a serveconf spec",
        code="ray_serve" if is_convertible else "foreign", hint=hint, source=source.line(line),
    )  # fmt: skip
