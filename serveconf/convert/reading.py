"""The Ray Serve config in a file: as it is, in a RayService manifest (text or mapping), or in the form of KubeRay's first API.

In: a path. Out: the config's plain data as Ray Serve's own reader would give it, or problems at their places.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from serveconf.spec.load import read_bytes
from serveconf.spec.problems import Problem
from serveconf.spec.tree import parse

_DOCUMENT = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)
OURS = re.compile(r"RayService|serveConfigV2|^(applications|import_path|deployments)[ \t]*:", re.MULTILINE)
_OPTIONS = {"proxy_location", "http_options", "grpc_options", "logging_config"}
_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One config. ``name``: what the manifest calls it; ``notes``: what of the file is not in ``data``.

    ``bound``: import paths name bound applications or builders of them, not the class or function itself.
    """

    data: dict[str, Any]
    name: str | None = None
    bound: bool = True
    notes: tuple[str, ...] = ()


def read_config(file: Path) -> Config | list[Problem]:
    """The first config in the file."""
    try:
        data = read_bytes(file)
    except OSError as error:
        return [_problem(file, f"cannot be read: {error.strerror or error}", "file", 0)]
    documents, problems = _documents(data, file)
    if problems:
        return problems
    found = [one for one in map(_config_of, documents) if one is not None]
    if not found:
        return [_problem(file, _nothing(documents), "type", 1)]
    first, *others = found
    if isinstance(first, str):
        return [_problem(file, first, "syntax", 1)]
    more = [
        f"{one.name or 'another config'} stands in the same file; convert it by itself"
        for one in others
        if isinstance(one, Config)
    ]
    return replace(first, notes=(*first.notes, *more))


def _problem(file: Path, message: str, code: str, line: int) -> Problem:
    return Problem(file=str(file), line=line, column=min(line, 1), path="", message=message, code=code)


def _nothing(documents: list[Any]) -> str:
    keys = documents[0] if documents and isinstance(documents[0], dict) else {}
    listed = keys.get("deployments")
    if isinstance(listed, list) and any(isinstance(one, dict) and "import_path" in one for one in listed):
        return "this is a serveconf spec already"
    return "this is no Ray Serve config: it has neither 'applications', 'import_path' nor 'kind: RayService'"


def _documents(data: bytes, file: Path) -> tuple[list[Any], list[Problem]]:
    """Every YAML document of the file. The strict parser looks first: its limits make the second reading safe."""
    text = data.decode("utf-8-sig", "replace")
    starts = [0, *(match.end() for match in _DOCUMENT.finditer(text))]
    ends = [*(match.start() for match in _DOCUMENT.finditer(text)), len(text)]
    whole = parse(data, str(file))
    pieces = list(zip(starts, ends, strict=True)) if _several(whole.problems) else [(0, len(text))]
    found: list[Any] = []
    for start, end in pieces:
        piece = text[start:end]
        if len(pieces) > 1 and not OURS.search(piece):
            continue  # a Service, a ConfigMap: whatever is in it is not for us
        # blank lines before it keep the places right
        parsed = parse(("\n" * text.count("\n", 0, start) + piece).encode(), str(file))
        wrong = [one for one in parsed.problems if one.code not in ("key_type", "interpolation")]
        if wrong:
            return [], wrong
        value = _safe(piece)
        if isinstance(value, Problem):
            return [], [_problem(file, value.message, "syntax", text.count("\n", 0, start) + max(value.line, 1))]
        if value is not None:
            found.append(value)
    return found, []


def _several(problems: list[Problem]) -> bool:
    return any(one.code == "multiple_documents" for one in problems)


def _safe(text: str) -> Any:
    """The text's data, or the problem of it."""
    try:
        return plain(yaml.safe_load(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        message = f"cannot be read: {' '.join(str(error.problem or error).split())}"
    except (yaml.YAMLError, ValueError) as error:
        line, message = 1, f"cannot be read: {' '.join(str(error).split())}"
    return Problem(file="", line=line, column=1, path="", message=message, code="syntax")


def plain(value: Any) -> Any:
    """The value with text for keys and for dates, as JSON needs it."""
    match value:
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case datetime.date():
            return value.isoformat()
        case str() | bool() | int() | float() | None:
            return value
        case _:
            return str(value)


def _config_of(document: Any) -> Config | str | None:
    """The config of one document; a text says why there is none although there should be; None: something else."""
    if not isinstance(document, dict):
        return None
    if document.get("kind") == "RayService":
        return _from_manifest(document)
    if "apiVersion" in document and (holder := _holder(document)) is not None:  # of a controller built on KubeRay's
        return _from_manifest({"metadata": document.get("metadata"), "spec": holder})
    if document.get("kind") == "List" and isinstance(document.get("items"), list):
        return next((one for one in map(_config_of, document["items"]) if one is not None), None)
    given = document.get("deployments")
    listed = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    own = [one for one in listed if "import_path" in one]
    if "applications" in document:
        name = document.get("name")
        rest = {key: value for key, value in document.items() if key != "name"}
        return Config(data=rest, name=name if isinstance(name, str) else None)
    if "import_path" in document and not own:
        return Config(data=document)
    if "deployments" not in document and len(_OPTIONS & set(document)) > 1:
        return Config(data={**document, "applications": []}, notes=("it names no applications yet",))
    if any(_of_ray_serve_1(one) for one in own):
        others = {key: value for key, value in document.items() if key != "deployments"}
        return Config(data={**others, "applications": [_as_application(one) for one in own]}, bound=False)
    return None


def _holder(value: Any) -> dict[str, Any] | None:
    """The mapping, at any depth, that has a serveConfigV2."""
    if isinstance(value, dict) and "serveConfigV2" in value:
        return value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for one in inner if (found := _holder(one)) is not None), None)


def _of_ray_serve_1(entry: dict[str, Any]) -> bool:
    """Deployments had an import path each in Ray Serve 1, as here; what gives them away is its form, or a key of theirs."""
    path = entry["import_path"]
    dotted = isinstance(path, str) and ":" not in path and "." in path
    return dotted or bool({"max_concurrent_queries", "graceful_shutdown_wait_loop_s"} & set(entry))


def _as_application(entry: dict[str, Any]) -> dict[str, Any]:
    """A deployment of Ray Serve 1, which is no bound application, as one of its own."""
    own = ("name", "import_path", "route_prefix", "init_args", "init_kwargs")
    options = {key: value for key, value in entry.items() if key not in own}
    prefix = entry.get("route_prefix", f"/{entry.get('name')}")
    return {
        **{key: entry[key] for key in own if entry.get(key) is not None},
        "route_prefix": prefix,
        "deployments": [{"name": entry.get("name"), **options}],
    }


def _from_manifest(manifest: dict[str, Any]) -> Config | str:
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    spec = spec if isinstance(spec, dict) else {}
    notes = [
        f"spec.{key}: describes the Ray cluster, which is there before serveconf comes to it"
        for key in ("rayClusterConfig", "rayClusterSpec")
        if key in spec
    ]
    known = ("serveConfigV2", "serveConfig", "rayClusterConfig", "rayClusterSpec")
    notes += [f"spec.{key}: is for the manifest's own controller and was left out" for key in spec if key not in known]
    given: Any = spec.get("serveConfigV2")
    if given is None and isinstance(spec.get("serveConfig"), dict):
        given = _snake(spec["serveConfig"])
    if isinstance(given, str):
        if wrong := [
            one for one in parse(given.encode(), "").problems if one.code not in ("key_type", "interpolation")
        ]:
            return f"spec.serveConfigV2, line {wrong[0].line} of it: {wrong[0].message}"
        given = _safe(given)
    if isinstance(given, Problem):
        return f"spec.serveConfigV2, line {given.line} of it: {given.message}"
    if not isinstance(given, dict) or not {"applications", "import_path"} & set(given):
        return "this RayService has no applications under spec.serveConfigV2"
    return Config(data=given, name=name if isinstance(name, str) else None, notes=tuple(notes))


def _snake(value: Any) -> Any:
    """The first API's camelCase keys as Ray Serve has them; what was YAML in a text there, as data."""
    if not isinstance(value, dict):
        return [_snake(item) for item in value] if isinstance(value, list) else value
    made: dict[str, Any] = {}
    for key, item in value.items():
        name = _CAMEL.sub(lambda match: f"_{match[1].lower()}", key)
        as_text = name in ("runtime_env", "user_config", "autoscaling_config", "resources") and isinstance(item, str)
        read = _safe(item) if as_text else None
        made[name] = read if as_text and not isinstance(read, Problem) else _snake(item)
    return made
