"""A first spec as one would write it by hand, with comments: what ``init`` and ``run --save`` write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serveconf.disk import write_whole


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One deployment to be written."""

    name: str
    import_path: str
    kind: str | None = "asgi"  # asgi, class, function, deployment; None: it could not be imported
    factory: bool = False
    env_vars: Mapping[str, str] = field(default_factory=dict)  # as they are to be written


def spec_text(
    entries: Sequence[Entry],
    *,
    schema: str,
    alone: bool,
    stack: str | None = None,
    app_dir: str | None = None,
    port: int = 8000,
) -> str:
    """The spec. ``alone``: nothing else is served, so that its prefix can be ``/``."""
    lines = [
        f"# yaml-language-server: $schema={schema}",
        "# What is served, and where. `serveconf explain` tells what may stand here; `serveconf validate` checks it.",
        "",
    ]
    if stack is not None:
        lines += [f"name: {_plain(stack)}"]
    if app_dir is not None:
        lines += [f"app_dir: {_plain(app_dir):<20}# the folder where imports start"]
    if lines[-1]:
        lines.append("")
    lines += [
        "http_options:",
        "  host: 127.0.0.1            # 0.0.0.0 to be reached from other machines",
        f"  port: {port}",
        "",
        "deployments:",
    ]
    for entry in entries:
        lines += [*_deployment(entry, "/" if alone else f"/{entry.name}"), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _deployment(entry: Entry, prefix: str) -> Iterator[str]:
    yield f"  - name: {_plain(entry.name)}"
    yield f"    import_path: {entry.import_path:<23}# {_kind_words(entry)}"
    if entry.factory:
        yield "    factory: true"
    yield f"    route_prefix: {prefix:<22}# below which requests reach it"
    yield "    num_replicas: 1"
    if entry.kind == "class":
        yield "    init_kwargs: {}            # arguments of the class"
        yield "    user_config: null          # for reconfigure(user_config)"
    if entry.kind == "function" and not entry.factory:
        yield "    # factory: true             # if the function returns an app instead of answering requests"
    if entry.env_vars:
        yield "    ray_actor_options:"
        yield "      runtime_env:"
        yield "        env_vars:"
        for name, value in entry.env_vars.items():
            yield f"          {name}: {json.dumps(value, ensure_ascii=False)}"


def _kind_words(entry: Entry) -> str:
    if entry.kind is None:
        return "could not be imported when this was written"
    if entry.factory:
        return "makes an ASGI app"
    kinds = {"asgi": "an ASGI app", "class": "a class", "function": "a function", "deployment": "a deployment"}
    return kinds.get(entry.kind, "an object")


def _plain(text: str) -> str:
    """The text as a YAML value: quoted where it would be read as something else."""
    from serveconf.spec.scalars import Ambiguous, resolve_plain

    try:
        same = resolve_plain(text) == text and text.replace("/", "").replace(".", "").replace("-", "").isidentifier()
    except Ambiguous:
        same = False
    return text if same else json.dumps(text.replace("$", "$$"), ensure_ascii=False)


def names_for(paths: Sequence[str]) -> Iterator[str]:
    """A name for each import path: its module's last part, or more of it where that is taken."""
    taken: set[str] = set()
    for path in paths:
        module, _, attribute = path.partition(":")
        last = module.rpartition(".")[2]
        candidates = [last if last not in ("main", "app", "api") else module.replace(".", "-"), f"{last}-{attribute}"]
        candidates += [path.replace(":", "-").replace(".", "-")]
        name = next((one.strip("-._") for one in candidates if one.strip("-._") not in taken), candidates[-1])
        while name in taken or not name:
            name += "2"
        taken.add(name)
        yield name


def write_schema(folder: Path) -> str:
    """Puts the schema of this version beside the spec, for editors; its path from there."""
    from serveconf.spec.schema import json_schema

    schema = folder / ".serveconf" / "serveconf.schema.json"
    schema.parent.mkdir(exist_ok=True)
    write_whole(schema, json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
    return schema.relative_to(folder).as_posix()
