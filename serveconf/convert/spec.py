"""A Ray Serve config's data as a spec's data, with notes on what has no equal or means something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serveconf.convert.application import TOP, Note, application
from serveconf.convert.options import given_keys, logging_options, mapping, note_rest
from serveconf.convert.reading import Config
from serveconf.spec.checks import NAME
from serveconf.spec.models import HttpOptions

_FRONT = (
    "host", "port", "root_path", "request_timeout_s", "keep_alive_timeout_s", "ssl_certfile", "ssl_keyfile", "ssl_ca_certs",
    "ssl_keyfile_password",
)  # fmt: skip
_LOCATIONS = {"Disabled": "NoServer", "HeadOnly": "HeadOnly", "EveryNode": "EveryNode", "NoServer": "NoServer"}


def to_spec(config: Config, folders: list[Path]) -> tuple[dict[str, Any], list[str]]:
    """The spec's data and the notes. ``folders``: where the code, and a relative working_dir, may lie; the first holds the file."""
    notes = list(config.notes)

    def note(path: str, text: str) -> None:
        notes.append(f"{path}: {text}" if path else text)

    data = config.data
    single = "applications" not in data
    given = [data] if single else data["applications"]
    entries = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    spec: dict[str, Any] = {}
    if config.name and re.fullmatch(NAME, config.name):
        spec["name"] = config.name
    folder = _app_dir(entries, folders)
    if folder not in (None, "."):
        spec["app_dir"] = folder
    spec["http_options"] = _front(data, note)
    known = {*TOP, "applications"} - {"grpc_options", "target_capacity"}
    note_rest(data, known | (set(data) - set(TOP) if single else set()), "", note)
    if log_lines := logging_options(data.get("logging_config"), "logging_config", note):
        spec["defaults"] = {"logging": log_lines}
    searched = [folders[0] / folder, *folders] if folder else folders
    spec["deployments"] = [
        application(entry, "" if single else f"applications[{index}]", searched, index, note, bound=config.bound)
        for index, entry in enumerate(entries)
    ]
    return spec, notes


def _front(config: Mapping[str, Any], note: Note) -> dict[str, Any]:
    given = {key: value for key, value in mapping(config.get("http_options")).items() if value is not None}
    old = {key: config[key] for key in ("host", "port") if config.get(key) is not None}
    said = config["proxy_location"] if "proxy_location" in config else given.get("location", "EveryNode")
    front: dict[str, Any] = {
        "location": _LOCATIONS.get(str(said), "EveryNode") if said else "NoServer",
        "host": "0.0.0.0",
    }
    front |= {key: value for key, value in (old | given).items() if key in _FRONT and key in HttpOptions.model_fields}
    for key in ("request_timeout_s", "keep_alive_timeout_s"):
        if isinstance(front.get(key), int | float) and front[key] <= 0:
            note(f"http_options.{key}", f"{front.pop(key)} is no time here; it was left out")
    if "proxy_location" not in config and "location" not in given:
        note(
            "proxy_location", "is not set, which means EveryNode to Ray Serve and HeadOnly here; EveryNode was written"
        )
    if "host" not in given and "host" not in config:
        note(
            "http_options.host", "is not set, which means 0.0.0.0 to Ray Serve and 127.0.0.1 here; 0.0.0.0 was written"
        )
    note_rest(given, {*(key for key in _FRONT if key in HttpOptions.model_fields), "location"}, "http_options", note)
    return front


def _app_dir(entries: list[Mapping[str, Any]], folders: list[Path]) -> str | None:
    """A local working directory that is there, and that all applications share, becomes app_dir."""
    given = {mapping(entry.get("runtime_env")).get("working_dir") for entry in entries}
    folder = given.pop() if len(given) == 1 else None
    if not isinstance(folder, str) or not given_keys(folder) or "://" in folder or not (folders[0] / folder).is_dir():
        return None
    return folder
