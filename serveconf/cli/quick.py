"""The quick way in: ``serveconf run module:app`` without a file. The spec is written for the user and says where it lies.

In: what stands after ``run``: a spec file, import paths, Python files, or nothing. Out: the spec file to apply.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from serveconf.cli.find_apps import App, apps_of, find_apps, python_folders
from serveconf.cli.import_roots import find_module
from serveconf.cli.spec_text import Entry, names_for, spec_text, write_schema
from serveconf.disk import write_whole
from serveconf.errors import AuthorError
from serveconf.spec.envfile import read_env_file

DEFAULT_FILE = Path("serve.yaml")
KEPT = Path(".serveconf") / "run.yaml"  # what a run without a file applies: hidden, so that it is no code


def spec_file(
    targets: list[str], *, save: Path | None, port: int | None, env_files: Sequence[Path] = ()
) -> tuple[Path, str | None]:
    """The spec file of what was named, written where there is none, and what to tell about it.

    What ``env_files`` set is for the code too: a spec that is written names those variables.

    Raises AuthorError where nothing can be served, or where a file would be written over.
    """
    if not targets and save is None and DEFAULT_FILE.is_file():
        return _given(DEFAULT_FILE, port), None
    if len(targets) == 1 and not _is_import_path(targets[0]) and not targets[0].endswith(".py"):
        if save is not None:
            raise AuthorError("--save is for a run without a spec file", hint="name what to serve as module:attribute")
        return _given(Path(targets[0]), port), None
    here = Path.cwd()
    apps = _apps(targets, here)
    root = apps[0].root
    if other := next((app for app in apps if app.root != root), None):
        raise AuthorError(
            f"{apps[0].import_path} and {other.import_path} are imported from different folders: {_shown(root)} and "
            f"{_shown(other.root)}",
            hint="'serveconf init' writes a spec for each",
        )
    file = here / (save or KEPT)
    variables = {name: f"${{{name}}}" for env_file in env_files for name in read_env_file(env_file)[0]}
    text = _text(apps, root, file.parent, here, port or 8000, variables)
    if save is not None and file.exists() and not _holds(file, text):  # a run that found its port taken wrote it, too
        raise AuthorError(f"{save} is there already", hint=f"serve it: serveconf run {save}")
    file.parent.mkdir(exist_ok=True)
    write_whole(file, text)
    shown = ", ".join(app.import_path for app in apps)
    if save is not None:
        return save, f"wrote {save}: {shown}"
    return KEPT, f"serving {shown}; to keep it as a file: serveconf run {' '.join(targets)} --save serve.yaml"


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _given(file: Path, port: int | None) -> Path:
    if port is not None:
        raise AuthorError("--port is for a run without a spec file", hint=f"set http_options.port in {file}")
    return file


def _is_import_path(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+:[\w.]+", text) is not None and not Path(text).exists()


def _apps(targets: list[str], here: Path) -> list[App]:
    if not targets:
        found = find_apps(here)
        if not found:
            raise AuthorError(
                "there is no serve.yaml here and no FastAPI app below", hint="name one: serveconf run main:app"
            )
        return found
    folders = python_folders(here)
    apps: list[App] = []
    for target in dict.fromkeys(targets):
        if target.endswith(".py"):
            apps += _apps_in(Path(target), here)
        elif _is_import_path(target):
            apps.append(App(find_module(target.partition(":")[0], here, folders) or here, target))
        else:
            raise AuthorError(f"'{target}' is no import path", hint="write module:attribute, such as main:app")
    return apps


def _apps_in(file: Path, here: Path) -> list[App]:
    """The apps that a Python file defines; the first is meant where one is called ``app``."""
    path = Path(os.path.abspath(file))
    if not path.is_file():
        raise AuthorError(f"{file} cannot be read: there is no such file")
    found = apps_of(path, here if path.is_relative_to(here) else path.parent)
    if not found:
        raise AuthorError(f"{file} defines no FastAPI app", hint="name it: serveconf run module:attribute")
    return [app for app in found if app.import_path.endswith(":app")] or found


def _text(apps: list[App], root: Path, folder: Path, here: Path, port: int, variables: dict[str, str]) -> str:
    names = names_for([app.import_path for app in apps])
    entries = [
        Entry(name=name, import_path=app.import_path, factory=app.factory, env_vars=variables)
        for name, app in zip(names, apps, strict=True)
    ]
    app_dir = os.path.relpath(root, folder)
    return spec_text(
        entries,
        schema=os.path.relpath(here / write_schema(here), folder),
        alone=len(entries) == 1,
        stack=re.sub(r"[^A-Za-z0-9_-]+", "-", here.name).strip("-") or "default",
        app_dir=None if app_dir == "." else app_dir,
        port=port,
    )


def _shown(folder: Path) -> str:
    return os.path.relpath(folder)
