"""What an author may have meant by a key that is not known where it stands."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

from serveconf.spec.fields import Shape, walk_fields
from serveconf.spec.scalars import shorten

# Names that other tools, first of all Ray Serve, use: where they stand -> what is written here instead.
# An instruction that begins with a blank is a whole sentence's end; others are a key's path.
_ELSEWHERE: dict[str, dict[str, str]] = {
    "": {
        "logging_config": "defaults.logging",
        "proxy_location": "http_options.location",
        "applications": "deployments (of a Ray Serve config 'serveconf convert' makes a spec)",
        "apps": "deployments",
        "services": "deployments",
        "routes": "deployments, each with a route_prefix",
        "runtime_env": "deployments[].ray_actor_options.runtime_env",
        "http": "http_options",
        "working_dir": "app_dir",
        "includes": "include",
    },
    "http_options": {
        "proxy_location": "location",
        "timeout": "request_timeout_s",
        "middleware": "middlewares",
        "max_body_size": "max_request_body_bytes",
    },
    "http_options.tracing": {
        "url": "endpoint",
        "otlp_endpoint": "endpoint",
        "collector": "endpoint",
        "sample_rate": "sample",
        "sampling": "sample",
        "ratio": "sample",
    },
    "deployments[]": {
        "max_concurrent_queries": "max_ongoing_requests",
        "logging_config": "logging",
        "replicas": "num_replicas",
        "prefix": "route_prefix",
        "path": "route_prefix",
        "app": "import_path",
        "args": "init_kwargs (or init_args)",
        "kwargs": "init_kwargs",
        "env": "ray_actor_options.runtime_env.env_vars",
        "env_vars": "ray_actor_options.runtime_env.env_vars",
        "cpus": "ray_actor_options.num_cpus",
        "gpus": "ray_actor_options.num_gpus",
        "timeout": "request_timeout_s",
        "middleware": "middlewares",
        "autoscaling": "autoscaling_config",
        "deployments": "one entry of the top-level list for each deployment",
    },
    "deployments[].autoscaling_config": {
        "target_num_ongoing_requests_per_replica": "target_ongoing_requests",
        "upscale_smoothing_factor": "upscaling_factor",
        "downscale_smoothing_factor": "downscaling_factor",
        "smoothing_factor": "upscaling_factor and downscaling_factor",
        "minReplicas": "min_replicas",
        "maxReplicas": "max_replicas",
    },
    "deployments[].autoscaling_config.schedule[]": {
        "start": "from",
        "end": "until",
        "to": "until",
        "tz": "timezone",
        "cron": "from and until",
        "replicas": "min_replicas",
    },
    "deployments[].ray_actor_options": {
        "cpus": "num_cpus",
        "gpus": "num_gpus",
    },
}
_NO_EQUAL: dict[str, set[str]] = {
    "": {"grpc_options", "target_capacity"},
    "http_options": {"num_cpus"},
    "deployments[]": {
        "external_scaler_enabled", "graceful_shutdown_wait_loop_s", "request_router_config",
    },
    "deployments[].autoscaling_config": {
        "aggregation_function", "look_back_period_s", "metrics_interval_s",
    },
}  # fmt: skip


class UnknownKey(NamedTuple):
    """What to say about a key."""

    message: str
    code: str
    hint: str | None


def place_of(path: str) -> str:
    """A path without its indexes, ``defaults`` read as what it gives defaults for."""
    return re.sub(r"^defaults(?=\.|$)", "deployments[]", re.sub(r"\[\d+\]", "[]", path))


_FIELDS = tuple(walk_fields())


def explain_unknown_key(holder: str, key: str, shape: Shape, *, guess: bool = True) -> UnknownKey:
    """Why ``key`` cannot stand in the mapping at path ``holder``, and what may be meant (``guess``: by its spelling)."""
    place, unknown = place_of(holder), f"unknown key '{shorten(key)}'"
    if holder == "defaults" and key in ("name", "import_path", "route_prefix"):
        return UnknownKey(f"'{key}' cannot have a default", "misplaced_key", "every deployment says its own")
    if instead := _ELSEWHERE.get(place, {}).get(key):
        return UnknownKey(unknown, "unknown_key", f"write {instead} instead")
    homes = sorted({_holder(path) for path, field in _FIELDS if field.name == key} - {place})
    homes = [home for home in homes if not home.startswith("defaults")]
    homes = [home for home in homes if home.count(".") == min(other.count(".") for other in homes)]
    if homes and key not in ("args", "kwargs"):
        return UnknownKey(f"'{key}' does not belong here", "misplaced_key", f"'{key}' belongs {_places(homes, place)}")
    if key in _NO_EQUAL.get(place, ()):
        return UnknownKey(unknown, "unknown_key", "serveconf has no equal of this key; leave it out")
    if guess and len(key) < 60 and (hint := _near_miss(key, shape)):
        return UnknownKey(unknown, "unknown_key", hint)
    allowed = ", ".join(shape.fields)
    return UnknownKey(unknown, "unknown_key", f"keys here: {allowed}")


def _near_miss(key: str, shape: Shape) -> str | None:
    """A known key that is spelt almost like this one: of the same mapping, else of another."""
    near = difflib.get_close_matches(_letters(key), {_letters(name): name for name in shape.fields}, n=1, cutoff=0.7)
    if near:
        meant = next(name for name in shape.fields if _letters(name) == near[0])
        return f"did you mean '{meant}'?"
    known = {_letters(field.name): path for path, field in reversed(_FIELDS)}
    near = difflib.get_close_matches(_letters(key), known, n=1, cutoff=0.75)
    return f"did you mean '{known[near[0]]}'?" if near else None


def _letters(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _holder(path: str) -> str:
    return path.rpartition(".")[0]


def _places(homes: list[str], place: str) -> str:
    def phrase(home: str) -> str:
        inner = home.removeprefix(f"{place}.") if place else home
        if not home:
            return "at the top level"
        return "in an entry of deployments" if inner == "deployments[]" else f"in {inner}"

    return " or ".join(phrase(home) for home in homes[:3])
