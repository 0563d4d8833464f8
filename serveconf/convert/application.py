"""One Ray Serve application as one deployment of a spec: the deployment that answers HTTP, with its options.

Which of the listed ones that is, the code says where it can be read (``ingress``), else the config itself; what it is told
by is written into a note where it is a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serveconf.convert.ingress import Seen, see
from serveconf.convert.options import deployment_options, given_keys, join, mapping, note_rest
from serveconf.spec.checks import IMPORT_PATH, NAME
from serveconf.spec.models import DeploymentSpec

Note = Callable[[str, str], None]

TOP = (
    "proxy_location",
    "http_options",
    "grpc_options",
    "logging_config",
    "target_capacity",
    "host",
    "port",
)  # fmt: skip  noted at the top, where a config of one application has them
_READ = (
    "name", "import_path", "route_prefix", "args", "runtime_env", "deployments", "init_args", "init_kwargs", *TOP,
)  # fmt: skip
_ANSWERS = ("dagdriver", "ingress", "gateway", "frontend", "driver", "api", "router", "app$")  # the plainest first
_BUILDER = re.compile(r"(build|create|make)_|\w*_?builder$", re.IGNORECASE)
GRAPHS = (
    "overrides" in DeploymentSpec.model_fields
)  # whether the deployments behind an ingress are deployments here too


def application(
    app: Mapping[str, Any], place: str, folders: list[Path], index: int, note: Note, *, bound: bool
) -> dict[str, Any]:
    """The deployment's data. ``bound``: its import path names a bound application, or a function that builds one."""
    import_path = _import_path(app.get("import_path"), join(place, "import_path"), note)
    seen = see(folders, import_path) if import_path else None
    given = app.get("deployments")
    listed = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    chosen = _ingress(listed, seen, place, note)
    options = listed[chosen] if chosen is not None else {}
    entry: dict[str, Any] = {"name": _name(app, options, index, place, note), "import_path": import_path}
    entry["route_prefix"] = _prefix(app, options)
    entry |= {key: app[key] for key in ("init_args", "init_kwargs") if key in app}
    if bound:
        entry |= _builder(app, import_path, seen, place, note)
    if bound and not GRAPHS:
        _note_bound(seen, import_path, place, note)
    at = join(place, f"deployments[{chosen}]") if chosen is not None else place
    entry |= deployment_options(options, at, note, set_in_code=_set_in_code(seen, chosen is None))
    _others(listed, chosen, entry, place, note)
    _environment(app, entry, place, note)
    note_rest(app, _READ, place, note)
    return entry


def _import_path(given: Any, place: str, note: Note) -> str | None:
    """``pkg.module.attr`` is ``pkg.module:attr``."""
    if not isinstance(given, str) or not given.strip():
        return None
    path = given.strip()
    if ":" not in path and "." in path:
        path = ":".join(path.rsplit(".", 1))
    if not re.fullmatch(IMPORT_PATH, path):
        note(place, f"{path} is no module:attribute of plain Python names; rename the module")
    if path.startswith("ray."):
        note(place, f"{path} is Ray's own and makes an application of Ray Serve, which only Ray Serve can run")
    return path


def _ingress(listed: list[Mapping[str, Any]], seen: Seen | None, place: str, note: Note) -> int | None:
    """The index of the deployment that answers HTTP; None where none of the listed ones does."""
    names = [one.get("name") for one in listed]
    if seen is not None and seen.name is not None:
        return names.index(seen.name) if seen.name in names else None
    routed = [index for index, one in enumerate(listed) if one.get("route_prefix")]
    if len(routed) == 1:
        return routed[0]
    if len(listed) < 2:
        return 0 if listed else None
    told = [
        [index for index, name in enumerate(names) if re.search(word, str(name), re.IGNORECASE)] for word in _ANSWERS
    ]
    by_name = next((found[0] for found in told if len(found) == 1), None)
    chosen = len(listed) - 1 if by_name is None else by_name
    by = "as the last one, which is where Ray Serve writes it" if by_name is None else "by its name"
    note(
        join(place, "deployments"),
        f"which of them answers HTTP only the code says, and it can't be read here; {names[chosen]} was taken, {by}",
    )
    return chosen


def _name(app: Mapping[str, Any], options: Mapping[str, Any], index: int, place: str, note: Note) -> str:
    given = str(app.get("name") or options.get("name") or ("default" if index == 0 else f"app{index}"))
    if re.fullmatch(NAME, given):
        return given
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", given).strip("-.")[:100].strip("-.") or f"app{index}"
    note(join(place, "name"), f"{given!r} is no name here; {name} was taken")
    return name


def _prefix(app: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    """The application's own; in the old form the deployment's."""
    given = app["route_prefix"] if "route_prefix" in app else options.get("route_prefix") or "/"
    if not isinstance(given, str):
        return None
    return "/" + given.strip("/")


def _builder(
    app: Mapping[str, Any], import_path: str | None, seen: Seen | None, place: str, note: Note
) -> dict[str, Any]:
    """A function that Ray Serve calls with the application's args, which are one mapping."""
    args = app.get("args")
    if seen is None and args is None and import_path and _BUILDER.match(import_path.partition(":")[2]):
        note(
            join(place, "import_path"),
            f"{import_path} was taken for a function that builds the application, by its name",
        )
    elif args is None and not (seen and seen.builder):
        return {}
    return {"factory": True, "init_args": [args or {}]}


def _set_in_code(seen: Seen | None, unlisted: bool) -> frozenset[str] | None:
    """What the decorator sets, where the code was seen; None: nothing is known of it."""
    return seen.options if seen is not None and (seen.name is not None or unlisted) else None


def _note_bound(seen: Seen | None, import_path: str | None, place: str, note: Note) -> None:
    """Where applications are not served as they are, someone must name the class in them."""
    if (import_path or "").startswith("ray."):
        return  # said by _import_path
    if seen is not None and seen.builder:
        text = f"{import_path} builds a bound application there; let it return the deployment itself here"
    else:
        name = f" ({seen.name})" if seen is not None and seen.name else ""
        text = f"{import_path} names a bound application there; name the class, function or ASGI app itself{name} here"
    note(join(place, "import_path"), text)


def _others(listed: list[Mapping[str, Any]], chosen: int | None, entry: dict[str, Any], place: str, note: Note) -> None:
    """Deployments that are called through handles."""
    overrides: dict[str, Any] = {}
    for number, other in enumerate(listed):
        if number == chosen:
            continue
        at, name = join(place, f"deployments[{number}]"), other.get("name")
        if not GRAPHS:
            note(at, f"{name} is called through a handle there; call it as an object here")
        elif isinstance(name, str):
            overrides[name] = deployment_options(other, at, note, set_in_code=None)
    if overrides:
        entry["overrides"] = overrides


def _environment(app: Mapping[str, Any], entry: dict[str, Any], place: str, note: Note) -> None:
    """The application's runtime environment under the deployment's: env_vars key by key, all else taken whole."""
    outer = mapping(app.get("runtime_env"))
    for key in ("working_dir", "py_modules"):
        if given_keys(outer.get(key)):
            note(join(place, f"runtime_env.{key}"), _where_code_is(outer[key]))
    for one in (entry, *entry.get("overrides", {}).values()):
        actor = dict(one.pop("ray_actor_options", {}))
        inner = mapping(actor.pop("runtime_env", None))
        for key in ("working_dir", "py_modules"):
            if given_keys(inner.get(key)) and inner[key] != outer.get(key):
                note(join(place, f"runtime_env.{key}"), _where_code_is(inner[key]))
        merged = {
            k: v for k, v in {**outer, **inner}.items() if k not in ("working_dir", "py_modules") and given_keys(v)
        }
        variables = {**mapping(outer.get("env_vars")), **mapping(inner.get("env_vars"))}
        if variables:
            merged["env_vars"] = {key: _variable(value) for key, value in variables.items()}
        if merged:
            actor["runtime_env"] = merged
        if actor:
            one["ray_actor_options"] = actor


def _where_code_is(given: Any) -> str:
    if "://" in str(given):
        return f"{given}: nothing is fetched here; put that code into app_dir"
    return f"{given}: replicas import from app_dir here"


def _variable(value: Any) -> str:
    """Environment variables are texts, also where YAML reads a number."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
