"""A Ray Serve config as a serveconf spec: its data in; the spec's data and notes on what has no equal out.

One application becomes one deployment, the one that answers HTTP; deployments that it calls through handles are plain
Python objects of that deployment here, and are named in a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_FRONT = ("host", "port", "root_path", "request_timeout_s", "keep_alive_timeout_s")
_SAME = (
    "max_ongoing_requests", "max_queued_requests", "user_config", "health_check_period_s", "health_check_timeout_s",
    "graceful_shutdown_timeout_s",
)  # fmt: skip
_AUTOSCALING = (
    "min_replicas", "max_replicas", "initial_replicas", "target_ongoing_requests", "upscale_delay_s", "downscale_delay_s",
    "downscale_to_zero_delay_s", "upscaling_factor", "downscaling_factor",
)  # fmt: skip
_ACTOR = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "runtime_env", "label_selector")
_AUTO = {"min_replicas": 1, "max_replicas": 100, "target_ongoing_requests": 2}  # what num_replicas: auto means there
_LOCATIONS = {"Disabled": "NoServer", "HeadOnly": "HeadOnly", "EveryNode": "EveryNode", "NoServer": "NoServer"}

Note = Callable[[str, str], None]


def from_ray_serve(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The spec's data and the notes."""
    notes: list[str] = []

    def note(path: str, text: str) -> None:
        notes.append(f"{path}: {text}")

    single = "applications" not in config and "import_path" in config
    spec: dict[str, Any] = {"http_options": _front(config, note)}
    applications = [config] if single else config.get("applications")
    known = {"proxy_location", "http_options", "applications"}
    if single:
        known |= {"import_path", "runtime_env", "deployments", "name", "route_prefix", "args", "host", "port"}
    _rest(config, known, "", note)
    entries = [one for one in applications if isinstance(one, Mapping)] if isinstance(applications, list) else []
    places = ["" if single else f"applications[{i}]" for i in range(len(entries))]
    spec["deployments"] = [
        _application(entry, place, i, note) for i, (entry, place) in enumerate(zip(entries, places, strict=True))
    ]
    if len(entries) == 1 and (folder := _app_dir(entries[0])):
        spec = {"app_dir": folder, **spec}
    return spec, notes


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _rest(given: Mapping[str, Any], known: Iterable[str], place: str, note: Note) -> None:
    """Notes every key that was not taken over."""
    for key in given:
        if key not in set(known):
            note(_join(place, str(key)), "has no equal and was left out")


def _front(config: Mapping[str, Any], note: Note) -> dict[str, Any]:
    given = _mapping(config.get("http_options"))
    legacy = {key: config[key] for key in ("host", "port") if key in config}
    location = config.get("proxy_location", "EveryNode")
    front: dict[str, Any] = {
        "location": _LOCATIONS.get(str(location), "EveryNode") if location else "NoServer",
        "host": "0.0.0.0",
    }
    front |= {key: value for key, value in (legacy | dict(given)).items() if key in _FRONT}
    if "proxy_location" not in config:
        note("proxy_location", "was left out, which means EveryNode to Ray Serve; HeadOnly is the default here")
    if "host" not in given and "host" not in config:
        note("http_options.host", "was left out, which means 0.0.0.0 to Ray Serve; 127.0.0.1 is the default here")
    _rest(given, _FRONT, "http_options", note)
    return front


def _application(app: Mapping[str, Any], place: str, index: int, note: Note) -> dict[str, Any]:
    listed = [one for one in app.get("deployments") or [] if isinstance(one, Mapping)]
    options = listed[0] if listed else {}
    name = app.get("name") or options.get("name") or ("default" if index == 0 else f"app{index}")
    entry: dict[str, Any] = {
        "name": name,
        "import_path": app.get("import_path"),
        "route_prefix": app.get("route_prefix", "/"),
    }
    note(
        _join(place, "import_path"),
        f"{app.get('import_path')} names a bound application there; name the class, function or ASGI app itself here",
    )
    if app.get("args"):
        entry |= {"factory": True, "init_args": [app["args"]]}
    entry |= _deployment(options, _join(place, "deployments[0]"), note)
    for number, other in enumerate(listed[1:], 1):
        note(
            _join(place, f"deployments[{number}]"),
            f"{other.get('name')} is called through a handle there; call it as an object here",
        )
    environment = {
        **_mapping(app.get("runtime_env")),
        **_mapping(entry.get("ray_actor_options", {}).get("runtime_env")),
    }
    for key in ("working_dir", "py_modules"):
        if key in environment:
            note(_join(place, f"runtime_env.{key}"), f"{environment.pop(key)}: replicas import from app_dir here")
    actor = {key: value for key, value in entry.pop("ray_actor_options", {}).items() if key != "runtime_env"}
    actor |= {"runtime_env": environment} if environment else {}
    _rest(app, ("name", "import_path", "route_prefix", "args", "runtime_env", "deployments", *_TOP), place, note)
    return entry | ({"ray_actor_options": actor} if actor else {})


_TOP = (
    "proxy_location",
    "http_options",
    "grpc_options",
    "logging_config",
    "target_capacity",
    "host",
    "port",
)  # noted at the top


def _app_dir(app: Mapping[str, Any]) -> str | None:
    """A local working directory becomes app_dir."""
    folder = _mapping(app.get("runtime_env")).get("working_dir")
    return folder if isinstance(folder, str) and folder and "://" not in folder else None


def _deployment(given: Mapping[str, Any], place: str, note: Note) -> dict[str, Any]:
    taken = {key: given[key] for key in _SAME if key in given}
    known = {"name", "num_replicas", "autoscaling_config", "ray_actor_options", "max_concurrent_queries", *_SAME}
    if "max_concurrent_queries" in given:
        taken.setdefault("max_ongoing_requests", given["max_concurrent_queries"])
    scaling, auto = _mapping(given.get("autoscaling_config")), given.get("num_replicas") == "auto"
    if scaling or auto:
        own = _autoscaling(scaling, _join(place, "autoscaling_config"), note)
        taken["autoscaling_config"] = {**(_AUTO if auto else {}), **own}
    elif given.get("num_replicas") is not None:
        taken["num_replicas"] = given["num_replicas"]
    actor = _mapping(given.get("ray_actor_options"))
    if actor:
        taken["ray_actor_options"] = {key: actor[key] for key in _ACTOR if key in actor}
        _rest(actor, _ACTOR, _join(place, "ray_actor_options"), note)
    if "max_ongoing_requests" not in taken:
        note(_join(place, "max_ongoing_requests"), "was left out, which means 5 to Ray Serve and 100 here")
    if "num_cpus" not in actor:
        note(_join(place, "ray_actor_options.num_cpus"), "was left out, which means 1 to Ray Serve and 0.1 here")
    _rest(given, known, place, note)
    return taken


def _autoscaling(given: Mapping[str, Any], place: str, note: Note) -> dict[str, Any]:
    old = "target_num_ongoing_requests_per_replica"
    taken = {key: given[key] for key in _AUTOSCALING if key in given}
    if old in given:
        taken.setdefault("target_ongoing_requests", given[old])
    _rest(given, (*_AUTOSCALING, old), place, note)
    return taken
