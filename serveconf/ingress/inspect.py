"""``python -m serveconf.ingress.inspect``: look at code before it is served, in a process that is thrown away.

One JSON object on stdin, one on stdout, or with ``--serve`` line by line; the user's own output goes to stderr. Each target
is imported in a forked child of its own. Factories are called, because what they return is what is served; classes are not
constructed. ``{"beforehand": [name, …]}``: import these, for all that is asked from then on.

in:  {"code_dir": str|null, "cwd": str|null, "timeout_s": number|null,
      "targets": [{"import_path", "factory", "init_args", "init_kwargs", "env_vars", "routed"}],
      "middlewares": [{"import_path", "args", "kwargs"} | {"import_path", "role": "policy", "env_vars"}]}
out: {"targets": [{"ok", "kind", "error", "traceback", "hint", "modules", "installed", "operations", "options", "graph"}],
      "middlewares": [{"ok", "error", "traceback", "hint", "modules"}]}
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from serveconf.code.by_value import by_value_file
from serveconf.errors import AuthorError, CodeFailed
from serveconf.ingress.beforehand import import_beforehand, installed_places, watch_imports
from serveconf.ingress.failures import code_failed
from serveconf.ingress.forked import run_forked
from serveconf.ingress.importing import import_target

_AT_ONCE = 2
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
MOST_INSTALLED = 400


def inspect_all(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request as the module's description says."""
    code_dir = Path(request["code_dir"]) if request.get("code_dir") else None
    targets, middlewares = request.get("targets", []), request.get("middlewares", [])
    jobs = []
    if targets:  # what it imports is the dearest part, and a middleware alone does not need it
        from serveconf.ingress.look import look_at_target

        jobs += [functools.partial(_report, look_at_target, code_dir, target) for target in targets]
    jobs += [functools.partial(_report, look_at_middleware, code_dir, middleware) for middleware in middlewares]
    results = run_forked(jobs, at_once=_AT_ONCE, timeout_s=request.get("timeout_s"))
    reports = [
        {**_EMPTY, "error": f"importing {asked['import_path']} {result}"} if isinstance(result, str) else result
        for asked, result in zip([*targets, *middlewares], results, strict=True)
    ]
    return {"targets": reports[: len(targets)], "middlewares": reports[len(targets) :]}


_EMPTY: dict[str, Any] = {
    "ok": False, "kind": None, "error": None, "traceback": None, "hint": None, "modules": [], "operations": [],
    "options": {}, "graph": [], "installed": [],
}  # fmt: skip


def look_at_middleware(code_dir: Path | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Import it and build it once around an app that does nothing; a scaling policy is only imported."""
    middleware = import_target(asked["import_path"], code_dir)
    if asked.get("role") == "policy":
        if not callable(middleware):
            raise AuthorError(
                f"{asked['import_path']} is not callable",
                hint="a policy is a function that takes a ScalingContext and gives a number of replicas",
            )
        return {}
    if not callable(middleware):
        raise AuthorError(
            f"{asked['import_path']} is not callable",
            hint="a middleware is a class or function that takes the next app",
        )
    try:
        built = middleware(_nothing, *asked.get("args", []), **asked.get("kwargs", {}))
    except Exception as exc:  # user code: it may raise anything
        raise code_failed(f"building {asked['import_path']}", exc) from exc
    if not callable(built):
        raise AuthorError(f"{asked['import_path']} gave {type(built).__qualname__}, which is no ASGI app")
    return {}


def _report(
    look: Callable[[Path | None, Mapping[str, Any]], dict[str, Any]], code_dir: Path | None, asked: Mapping[str, Any]
) -> dict[str, Any]:
    report = {**_EMPTY, "ok": True}
    before = set(sys.modules)
    os.environ.update(asked.get("env_vars") or {})  # this process is the target's own
    used = watch_imports()
    try:
        report |= look(code_dir, asked)
    except AuthorError as error:
        report |= {"ok": False, "error": error.message, "hint": error.hint}
        if isinstance(error, CodeFailed):
            report["traceback"] = error.traceback or None
    own = by_value_file(asked["import_path"])
    modules = _modules_below(code_dir)
    report |= {"modules": [*([own] if own else []), *modules], "installed": _installed_since(before - used)}
    homes = report.pop("homes", {})
    if homes and not own:
        from serveconf.ingress.needs import needed_files

        needed = needed_files(asked["import_path"].partition(":")[0], homes, modules)
        report["modules"] = needed[""]
        report["graph"] = [{**node, "modules": needed[node["name"]]} for node in report["graph"]]
    return report


def _modules_below(code_dir: Path | None) -> dict[str, ModuleType]:
    """What was imported from ``code_dir``, by the files, relative to it."""
    if code_dir is None:
        return {}
    root = os.path.realpath(code_dir) + os.sep
    found = {
        os.path.realpath(file): module
        for module in list(sys.modules.values())
        if isinstance(file := getattr(module, "__file__", None), str)
    }
    return {
        file[len(root) :].replace(os.sep, "/"): module
        for file, module in sorted(found.items())
        if file.startswith(root)
    }


def _installed_since(before: Set[str]) -> list[str]:
    """Installed modules that were imported since, in that order: the packages, and what lies right in them."""
    places = installed_places()
    found = [
        name
        for name, module in list(sys.modules.items())
        if name not in before
        and name.count(".") <= 1
        and isinstance(file := getattr(module, "__file__", None), str)
        and file.startswith(places)
    ]
    return found[:MOST_INSTALLED]


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """The app around which middlewares are tried."""


def main() -> None:
    """Read, look, write: once, or with ``--serve`` one line for each line, in a fork that leaves nothing in this process."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]  # -m puts the working directory first
    if sys.argv[1:] != ["--serve"]:
        _answer(json.load(sys.stdin), out)
        return
    import serveconf.ingress.look  # noqa: F401 - what every answer needs is there before the fork

    for line in sys.stdin:
        asked = json.loads(line)
        if "beforehand" in asked:
            print(json.dumps({"threads": _import_alone(asked["beforehand"])}), file=out, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the next question is not for the user's code
            _answer(asked, out)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            return  # the user's code has ended it: who waits for an answer sees this one's end, and looks once more


def _import_alone(names: list[str]) -> int:
    """Import them without the threads that some of them start to compute with; how many threads there are then."""
    variables = dict.fromkeys(_THREADS, "1") | {name: os.environ[name] for name in _THREADS if name in os.environ}
    before = {**os.environ}
    os.environ.update(variables)
    import_beforehand(names, failed=lambda _name, _error: None)
    for name in _THREADS:
        if name not in before:
            os.environ.pop(name, None)
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # no Linux
        return threading.active_count()


def _answer(request: dict[str, Any], out: TextIO) -> None:
    sys.dont_write_bytecode = True  # the code package is immutable
    if request.get("code_dir"):
        request["code_dir"] = os.path.abspath(request["code_dir"])
    place = next((p for p in (request.get("cwd"), request.get("code_dir")) if p and os.path.isdir(p)), None)
    if place is not None:
        os.chdir(place)
    sys.argv = ["serveconf"]
    result = inspect_all(request)
    out.write(json.dumps(result) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
