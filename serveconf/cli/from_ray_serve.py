"""``serveconf init --from-ray-serve``: a spec made of the Ray Serve config, or the bound application, that lies in a folder.

In: a folder, or what of it is meant. Out: the spec's text through ``convert``, and the lines of code that still name Ray
Serve. Code is read and never run.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serveconf.cli.convert import spec_text_of
from serveconf.cli.find_apps import files_below, module_of, parsed_if, python_folders
from serveconf.cli.import_roots import find_module, root_of
from serveconf.convert.ingress import see
from serveconf.convert.reading import OURS, Config, read_config

_MOST_BYTES = 1024 * 1024
_MOST_FILES = 2000
_BINDS = re.compile(rb"\bray\b[\s\S]*\.bind\(")
_NAMES_RAY_SERVE = re.compile(r"^\s*(from\s+ray\s+import\s+.*\bserve\b|(from|import)\s+ray\.serve\b)")
_EQUAL = ("ray.serve.handle", "ray.serve.exceptions", "ray.serve.metrics")


@dataclass(frozen=True)
class Source:
    """What a spec can be made of: a config, or applications of which code is all there is."""

    name: str
    config: Config
    folder: Path  # that of the config, or where the application's imports start


@dataclass(frozen=True)
class Line:
    """A line of code that names Ray Serve. ``instead``: what it becomes; empty where that has no equal."""

    file: Path
    number: int
    text: str
    instead: str


def sources(folder: Path) -> list[Source]:
    """The configs below the folder; where there is none, its bound applications as one."""
    return [*_configs(folder)] or [*_applications(folder)]


def source_named(path: str, folder: Path) -> Source | None:
    """A config file, or ``module:attribute`` of a bound application. None: a file that is no config."""
    if path.endswith((".yaml", ".yml")):
        config = read_config(folder / path)
        return Source(path, config, (folder / path).parent) if isinstance(config, Config) else None
    root = find_module(path.partition(":")[0], folder, python_folders(folder)) or folder
    return Source(path, _config([(root, path)]), root)


def text_for(source: Source, folder: Path) -> str:
    """The spec for a file in ``folder``."""
    applications = source.config.data.get("applications") or [source.config.data]
    paths = [str(one.get("import_path") or "") for one in applications if isinstance(one, dict)]
    folders = python_folders(folder)
    modules = [re.split("[:]", path)[0] if ":" in path else path.rpartition(".")[0] for path in paths if path]
    found = {module: find_module(module, folder, folders) for module in modules}
    roots = sorted({root for root in found.values() if root is not None})
    app_dir = os.path.relpath(roots[0], folder) if roots else None
    notes = [
        f"the code of {module} is not below this folder: let app_dir name it" for module in found if not found[module]
    ]
    if len(roots) > 1:
        others = ", ".join(os.path.relpath(root, folder) for root in roots[1:])
        notes.append(f"imports start in {app_dir} and in {others}: one spec has one app_dir, so make a file for each")
    places = [source.folder, *roots, folder]
    return spec_text_of(source.config, places, source.name, app_dir=app_dir, notes=notes)


def lines_to_change(folder: Path) -> list[Line]:
    """Every import of Ray Serve below the folder."""
    found: list[Line] = []
    for file in itertools.islice(files_below(folder, ".py"), _MOST_FILES):
        try:
            if file.stat().st_size > _MOST_BYTES:
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if _NAMES_RAY_SERVE.match(line):
                found.append(Line(file, number, line.strip(), _instead(line.strip())))
    return found


def _instead(line: str) -> str:
    if re.fullmatch(r"from ray import serve( as \w+)?", line):
        return line.replace("from ray import", "from serveconf import")
    if line.startswith("from ray.serve import "):
        return line.replace("from ray.serve", "from serveconf.serve")
    if any(line.startswith(f"from {module} import ") for module in _EQUAL):
        return line.replace("from ray.serve", "from serveconf.serve")
    return ""


def _configs(folder: Path) -> Iterator[Source]:
    for file in itertools.islice(files_below(folder, ".yaml", ".yml"), _MOST_FILES):
        try:
            if file.stat().st_size > _MOST_BYTES or not OURS.search(file.read_text("utf-8", "replace")):
                continue
        except OSError:
            continue
        config = read_config(file)
        if isinstance(config, Config):
            yield Source(os.path.relpath(file, folder), config, file.parent)


def _applications(folder: Path) -> Iterator[Source]:
    """One source with all of them."""
    found: list[tuple[Path, str]] = []
    for file in itertools.islice(files_below(folder, ".py"), _MOST_FILES):
        tree = parsed_if(file, _BINDS)
        if tree is None:
            continue
        root = root_of(file, folder, tree)
        module = module_of(file.relative_to(root))
        if module:
            found += [(root, f"{module}:{name}") for name in _bound(tree) or _builders(tree, root, module)]
    if found:
        yield Source(", ".join(path for _, path in found), _config(found), found[0][0])


def _bound(tree: ast.Module) -> list[str]:
    """Names at the module's level that are ``X.bind(…)`` and no part of another one."""
    bound: dict[str, ast.Call] = {}
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Attribute(attr="bind")) as call)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=ast.Attribute(attr="bind")) as call)
            ):
                bound[name] = call
            case _:
                pass
    parts = {one.id for call in bound.values() for one in ast.walk(call) if isinstance(one, ast.Name)}
    return [name for name in bound if name not in parts]


def _builders(tree: ast.Module, root: Path, module: str) -> list[str]:
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and len(node.args.args) <= 1]
    seen = {one.name: see([root], f"{module}:{one.name}") for one in functions}
    return [name for name, what in seen.items() if what is not None and what.builder and what.name]


def _config(found: list[tuple[Path, str]]) -> Config:
    """What ``serve build`` would write of these, with what ``serve run`` does where nothing is said."""
    applications: list[dict[str, Any]] = []
    taken: set[str] = set()
    for root, path in found:
        what = see([root], path)
        name = what.name if what is not None and what.name else path.partition(":")[2]
        while name in taken:
            name += "2"
        taken.add(name)
        prefix = "/" if len(found) == 1 else f"/{name}"
        applications.append({"name": name, "import_path": path, "route_prefix": prefix})
    front = {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": 8000}}
    return Config(data={**front, "applications": applications})
