"""What Python objects need to be served elsewhere: an import path for each, and one code package for all of them.

What a module defines is imported from a snapshot of the folder that holds its top-level package; what was defined in a
script, a notebook or inside a function travels by value, together with the modules of its folder that it has imported.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import site
import sys
import sysconfig
import tempfile
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from serveconf.client import Client
from serveconf.code.by_value import Bound, by_value_file, by_value_path
from serveconf.code.package import pack
from serveconf.code.snapshot import Snapshot, digest_of, take_snapshot
from serveconf.errors import AuthorError
from serveconf.ingress.by_value import REDUCERS
from serveconf.ingress.deployment import Application, Deployment
from serveconf.ingress.graph import nodes_of

Arguments = tuple[Sequence[Any], Mapping[str, Any]]


@dataclass
class Parcel:
    """The code of one request, as it is put together."""

    app_dir: Path | None = None  # where the first target comes from: the replicas' working directory
    _folders: list[Path] = field(default_factory=list)
    _files: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, target: Any, arguments: Arguments = ((), {})) -> tuple[str, dict[str, Any]]:
        """The import path of ``target`` and those of its arguments (``args``, ``kwargs``) that a spec can say.

        Raises AuthorError where it can be neither imported nor pickled.
        """
        args, kwargs = arguments
        said = {"args": list(args), "kwargs": dict(kwargs)}
        found = import_path_of(target)
        if found is not None and is_json(said):
            self._add_folder(sys.modules[found.partition(":")[0]])
            return found, said
        bound = target if is_json(said) else Bound(target=target, args=args, kwargs=kwargs)
        path = by_value_path(name)
        home = sys.modules.get(getattr(target, "__module__", None) or "__main__")
        if home is not None and home.__name__ != "__main__":
            self._add_folder(home)  # what it imports in its turn
        self._add_by_value(name, path, bound)
        return path, said if bound is target else {"args": [], "kwargs": {}}

    def add_application(self, name: str, app: Application) -> str:
        """The import path of a bound application: its module's name for it, or by value with the modules of its code."""
        path, _ = self.add(name, app)
        if by_value_file(path) is not None:
            for node in nodes_of(app):
                home = sys.modules.get(getattr(node.deployment.func_or_class, "__module__", None) or "__main__")
                if home is not None and home.__name__ != "__main__":
                    self._add_folder(home)
        return path

    def upload(self, client: Client) -> Snapshot:
        """Send the package where the controller does not have it yet; an empty one is none."""
        if not self._files and len(self._folders) == 1:
            return _upload(client, self._folders[0], take_snapshot(self._folders[0]))
        with tempfile.TemporaryDirectory() as place:
            for folder in self._folders:
                for path in take_snapshot(folder).files:
                    self._put(path, (folder / path).read_bytes())
            for path, content in self._files.items():
                target = Path(place, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            return _upload(client, Path(place), _snapshot_of(self._files))

    def _add_folder(self, module: ModuleType) -> None:
        folder = source_folder(module)
        if folder is not None and folder not in self._folders:
            self._folders.append(folder)
        self.app_dir = self.app_dir or folder

    def _add_by_value(self, name: str, path: str, target: object) -> None:
        root = main_folder()
        self.app_dir = self.app_dir or root
        for module in _imported_below(root):
            self._put(module.relative_to(root).as_posix(), module.read_bytes())
        file = by_value_file(path)
        assert file is not None
        self._put(file, pickled(name, target))

    def _put(self, path: str, content: bytes) -> None:
        if self._files.setdefault(path, content) != content:
            raise AuthorError(
                f"two of the folders that are deployed from hold a {path}", hint="deploy what is in them one by one"
            )


def import_path_of(target: Any) -> str | None:
    """``module:attribute`` where a module, not a script, defines ``target`` or the deployment made of it."""
    if not isinstance(target, type | FunctionType):
        return _path_of_instance(target)
    module, name = sys.modules.get(target.__module__), target.__qualname__
    if module is None or module.__name__ == "__main__" or "<" in name:
        return None
    try:
        found = attrgetter(name)(module)
    except AttributeError:
        return None
    return f"{module.__name__}:{name}" if _is(found, target) else None


def _path_of_instance(target: object) -> str | None:
    """An object does not know where it stands: the modules of the user's own are asked."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "__main__") != "__main__" and source_folder(module) is not None:
            for name, value in list(vars(module).items()):
                if _is(value, target):
                    return f"{module.__name__}:{name}"
    return None


def _is(found: object, target: object) -> bool:
    return found is target or (isinstance(found, Deployment) and found.func_or_class is target)


def source_folder(module: ModuleType) -> Path | None:
    """Where imports of the module start; None where it is installed and needs no package."""
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    file = getattr(top, "__file__", None)
    place = Path(file) if file else next((Path(entry) for entry in getattr(top, "__path__", ())), None)
    if place is None or _is_installed(place):
        return None
    return (place.parent.parent if file and hasattr(top, "__path__") else place.parent).resolve()


def main_folder() -> Path:
    """Where the script's own imports start; of a notebook or a REPL the working directory."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None:
        return Path.cwd()
    package = getattr(main, "__package__", None) or ""  # python -m package.module
    return Path(file).resolve().parents[len(package.split(".")) if package else 0]


def _imported_below(root: Path) -> list[Path]:
    """The files of the modules that this process has imported from below a folder, but for the script itself."""
    files = {
        Path(file).resolve()
        for name, module in list(sys.modules.items())
        if name != "__main__" and isinstance(file := getattr(module, "__file__", None), str) and file.endswith(".py")
    }
    return sorted(file for file in files if file.is_relative_to(root) and not _is_installed(file))


def _is_installed(file: Path) -> bool:
    """Whether it belongs to Python or to an installed package: every node of the cluster has those."""
    paths = sysconfig.get_paths()
    places = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")} | {site.getusersitepackages()}
    own = Path(__file__).resolve().parents[1]
    real = file.resolve()
    if not {"site-packages", "dist-packages"}.isdisjoint(real.parts):  # also those of an environment below this one
        return True
    return any(real.is_relative_to(os.path.realpath(place)) for place in places) or real.is_relative_to(own)


def is_json(value: object) -> bool:
    """Whether JSON gives ``value`` back as it is; a tuple comes back a list, so it is none."""
    try:
        return _same(json.loads(json.dumps(value, allow_nan=False)), value)
    except (TypeError, ValueError, RecursionError):
        return False


def _same(one: object, other: object) -> bool:
    """Equal, and of the same types all through: True is no 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _snapshot_of(files: Mapping[str, bytes]) -> Snapshot:
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    total = sum(map(len, files.values()))
    return Snapshot(digest=digest_of(hashes, frozenset()), files=hashes, total_bytes=total)


def _upload(client: Client, folder: Path, snapshot: Snapshot) -> Snapshot:
    if not snapshot.files:
        return Snapshot(digest="", files={}, total_bytes=0)
    if not client.has_code(snapshot.digest):
        client.put_code(snapshot.digest, pack(folder, snapshot))
    return snapshot


def pickled(name: str, target: object) -> bytes:
    """``target`` by value. Raises AuthorError with what in it cannot be pickled."""
    buffer = io.BytesIO()
    try:
        _pickler_class()(buffer).dump(target)
    except Exception as error:  # pickling runs user code: it may raise anything
        raise AuthorError(
            f"{name} cannot travel by value: {type(error).__name__}: {error}",
            hint="put it into a module of its own and import that: then the replicas import it too",
        ) from error
    return _with_stable_ids(buffer.getvalue())


def _with_stable_ids(data: bytes) -> bytes:
    """cloudpickle marks each class with a random id; a script that is run again should give the bytes that it gave before."""
    from ray.cloudpickle import cloudpickle

    known = [text.encode() for text in list(cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.values())]
    used = sorted((mark for mark in known if mark in data), key=data.index)
    for number, mark in enumerate(used):
        data = data.replace(mark, b"%032d" % number)
    content = hashlib.sha256(data).hexdigest()[:24].encode()
    for number in range(len(used)):
        data = data.replace(b"%032d" % number, content + b"%08d" % number)
    return data


def _pickler_class() -> Any:
    from ray.cloudpickle import CloudPickler  # here: importing Ray takes its time, and what is imported needs none

    class Pickler(CloudPickler):
        dispatch_table = ChainMap({**REDUCERS}, CloudPickler.dispatch_table)  # noqa: RUF012 - looked up on the class alone

        def _dynamic_function_reduce(self, func: FunctionType) -> Any:
            """A function takes the globals along that its body names. FastAPI evaluates its annotations where it arrives."""
            reduced = super()._dynamic_function_reduce(func)  # type: ignore[no-untyped-call]
            _, slots = reduced[2]
            for name in sorted(_named_in_annotations(func)):
                slots["__globals__"].setdefault(name, func.__globals__[name])
            return reduced

    return Pickler


def _named_in_annotations(func: FunctionType) -> set[str]:
    """Globals that annotations name where these are strings (``from __future__ import annotations``)."""
    names: set[str] = set()
    for annotation in func.__annotations__.values():
        if isinstance(annotation, str):
            try:
                names |= set(compile(annotation, "<annotation>", "eval").co_names)
            except SyntaxError:  # not meant as a type
                continue
    return names & func.__globals__.keys()
