"""The options of one Ray Serve deployment under the names that they have here, with a note on each that means something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from serveconf.spec.models import AutoscalingConfig

Note = Callable[[str, str], None]

_SAME = (
    "max_ongoing_requests", "max_queued_requests", "user_config", "health_check_period_s", "health_check_timeout_s",
    "graceful_shutdown_timeout_s", "max_replicas_per_node", "placement_group_bundles",
    "placement_group_strategy",
)  # fmt: skip
_ACTOR = (
    "num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "runtime_env", "label_selector", "fallback_strategy",
)  # fmt: skip
_AUTO = {"min_replicas": 1, "max_replicas": 100, "target_ongoing_requests": 2}  # what num_replicas: auto means there
_SCALING = (
    "min_replicas", "max_replicas", "initial_replicas", "target_ongoing_requests", "upscale_delay_s", "downscale_delay_s",
    "downscale_to_zero_delay_s", "upscaling_factor", "downscaling_factor",
)  # fmt: skip
_OLD_SCALING = {
    "target_num_ongoing_requests_per_replica": "target_ongoing_requests",
    "upscale_smoothing_factor": "upscaling_factor",
    "downscale_smoothing_factor": "downscaling_factor",
}
_THEIR_DELAYS = {"upscale_delay_s": 30.0, "downscale_delay_s": 600.0}  # Ray Serve's defaults
_QUIET = {"graceful_shutdown_wait_loop_s", "route_prefix", "name"}  # says how, not what; or is read elsewhere


def deployment_options(
    given: Mapping[str, Any], place: str, note: Note, *, set_in_code: frozenset[str] | None
) -> dict[str, Any]:
    """The options. ``set_in_code``: those that the decorator sets, which hold where the config is silent; None: not known."""
    given = {key: value for key, value in given.items() if value is not None}
    taken = {key: given[key] for key in _SAME if key in given}
    if "max_concurrent_queries" in given:
        taken.setdefault("max_ongoing_requests", given["max_concurrent_queries"])
    if "max_replicas_per_node" in taken:
        told = (
            "counts those that a change replaces: where no node has room for one more, set rollout.max_unavailable: 1"
        )
        note(join(place, "max_replicas_per_node"), told)
    taken |= _replicas(given, place, note)
    actor = {key: value for key, value in mapping(given.get("ray_actor_options")).items() if value is not None}
    if actor:
        taken["ray_actor_options"] = {key: actor[key] for key in _ACTOR if key in actor}
        note_rest(actor, _ACTOR, join(place, "ray_actor_options"), note)
    if log_lines := logging_options(given.get("logging_config"), join(place, "logging_config"), note):
        taken["logging"] = log_lines
    taken |= _affinity(mapping(given.get("request_router_config")), join(place, "request_router_config"), note)
    _note_defaults(taken, actor, place, note, set_in_code)
    known = {
        "logging_config",
        "request_router_config",
        "num_replicas",
        "autoscaling_config",
        "ray_actor_options",
        "max_concurrent_queries",
        *_QUIET,
        *_SAME,
    }
    note_rest(given, known, place, note)
    return taken


def _affinity(given: Mapping[str, Any], place: str, note: Note) -> dict[str, Any]:
    """``session_affinity`` where requests are routed by a consistent hash of their session; no other router has an equal."""
    router = str(given.get("request_router_class") or "").replace(":", ".")
    if not router.endswith(".ConsistentHashRouter"):
        note_rest(given, (), place, note)
        return {}
    note_rest(given, {"request_router_class"}, place, note)
    return {"session_affinity": {}}


_LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}  # as numbers, in Python's logging


def logging_options(given: Any, place: str, note: Note) -> dict[str, Any]:
    """``logging`` from a logging_config, at the top, of an application or of a deployment."""
    given = {key: value for key, value in mapping(given).items() if value is not None}
    taken: dict[str, Any] = {}
    level = given.get("log_level")
    level = _LEVELS.get(level) if isinstance(level, int) else str(level).lower() if level is not None else None
    if level in _LEVELS.values():
        taken["level"] = level
    if str(given.get("encoding", "")).lower() in ("text", "json"):
        taken["format"] = str(given["encoding"]).lower()
    note_rest(given, {"log_level" if "level" in taken else "", "encoding" if "format" in taken else ""}, place, note)
    return taken


def _replicas(given: Mapping[str, Any], place: str, note: Note) -> dict[str, Any]:
    scaling, auto = mapping(given.get("autoscaling_config")), given.get("num_replicas") == "auto"
    if scaling or auto:
        own = _autoscaling(scaling, join(place, "autoscaling_config"), note)
        return {"autoscaling_config": {**(_AUTO if auto else {}), **own}}
    match given.get("num_replicas"):
        case 0:
            note(
                join(place, "num_replicas"),
                "0 is no number of replicas here; with autoscaling_config min_replicas may be 0",
            )
            return {}
        case None:
            return {}
        case number:
            return {"num_replicas": number}


def _autoscaling(given: Mapping[str, Any], place: str, note: Note) -> dict[str, Any]:
    known = [key for key in _SCALING if key in AutoscalingConfig.model_fields]
    taken = {key: given[key] for key in known if given.get(key) is not None}
    old = {key: new for key, new in _OLD_SCALING.items() if new in known}
    for key, new in old.items():
        if given.get(key) is not None:
            taken.setdefault(new, given[key])
    note_rest({key: value for key, value in given.items() if value is not None}, (*known, *old), place, note)
    for key, theirs in _THEIR_DELAYS.items():
        ours = AutoscalingConfig.model_fields[key].default
        if key not in taken and ours != theirs:
            note(join(place, key), f"is not set, which means {theirs:g} to Ray Serve and {ours:g} here")
    return taken


def _note_defaults(
    taken: Mapping[str, Any], actor: Mapping[str, Any], place: str, note: Note, set_in_code: frozenset[str] | None
) -> None:
    """Two defaults differ; where the code sets them, nobody meets them."""
    unless = "" if set_in_code is not None else "unless the code sets it, "
    silent = set_in_code or frozenset()
    if "max_ongoing_requests" not in taken and "max_ongoing_requests" not in silent:
        ours = "1.5 times the target" if "autoscaling_config" in taken else "100"
        note(join(place, "max_ongoing_requests"), f"is not set: {unless}that means 5 to Ray Serve and {ours} here")
    if "num_cpus" not in actor and not silent & {"ray_actor_options.num_cpus"}:
        note(join(place, "ray_actor_options.num_cpus"), f"is not set: {unless}that means 1 to Ray Serve and 0.1 here")


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def given_keys(value: Any) -> bool:
    """Whether anything was said: null, and empty lists, mappings and texts, say nothing."""
    return value not in (None, {}, [], "")


def join(place: str, key: str) -> str:
    """The path of a key."""
    return f"{place}.{key}" if place else key


def note_rest(given: Mapping[str, Any], known: Iterable[str], place: str, note: Note) -> None:
    """Notes every key that was not taken over."""
    taken = set(known)
    for key, value in given.items():
        if key not in taken and given_keys(value):
            note(join(place, str(key)), "has no equal and was left out")
