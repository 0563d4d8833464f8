"""The docs page "The spec": prose that stands here, tables that come from the models and from the code table."""

from __future__ import annotations

from serveconf.spec.codes import CODES
from serveconf.spec.interpolate import MAX_TEXT
from serveconf.spec.load import MAX_FILES, MAX_PROBLEMS
from serveconf.spec.reference import COSTS, Entry, entries, example_yaml
from serveconf.spec.source import MAX_BYTES
from serveconf.spec.tree import MAX_DEPTH, MAX_NODES

_INTRO = f"""\
# The spec

<!-- Written by `serveconf explain -o markdown`; do not edit. -->

One YAML file declares one **stack**: a named set of deployments that is applied as a unit.

```yaml
# yaml-language-server: $schema=../../schemas/serveconf.schema.json
name: shop
deployments:
  - name: catalog
    import_path: shop.catalog:app   # served at /catalog
  - name: front
    import_path: shop.front:app
    route_prefix: /
    num_replicas: 2
```

`serveconf validate FILE` checks a file without a cluster, `serveconf explain FIELD.PATH` answers for one field,
`serveconf schema` prints the JSON Schema, and an editor with a YAML language server reads the first line above.

Nothing is silently ignored: an unknown, misplaced, duplicate or mistyped key is an error. A key that is removed means its
default again.

## YAML, without its traps

Unquoted text that YAML readers disagree about is an error that says what to write: `NO`, `on`, `017`, `0x1F`, `1_000`, `1:30`,
`2024-01-01`, `.nan`. Unquoted `true`, `false`, `null`, `~`, decimal integers and decimal fractions are what they look like;
whatever is quoted is text. Keys are always text.

Anchors, aliases and merge keys (`<<`) work, within the limits. Tags, a second document and duplicate keys are errors.
A file may have {MAX_BYTES // 1024} KiB, {MAX_NODES} values (aliases counted in full) and {MAX_DEPTH} levels, and one text
{MAX_TEXT // 1024} KiB. A load reports the first {MAX_PROBLEMS} problems.

## Variables

| written | means |
|---|---|
| `${{VAR}}` | the variable; an error where it is not set |
| `${{VAR:-default}}` | the default where it is not set, or empty; the default may hold variables |
| `${{VAR:?message}}` | an error with the message where it is not set, or empty |
| `$$` | a `$` |

Variables are replaced in values, never in keys, after the YAML was read: a variable cannot add keys. In a field with a type the
text takes the field's type (`port: ${{PORT}}`). Where anything may stand (`user_config`, `init_kwargs`, …) an unquoted
`${{VAR}}` is read like unquoted YAML (`0.5` is a number) and a quoted `"${{VAR}}"` is always text. Inside `[ ]` and `{{ }}`
quote it. Values come from the environment, and from `--env-file FILE` where the environment does not have them. Plans, status and
history show such a value as it is written, never its content.

## Several files

`include` names other files of the same form, relative to the file that names them (at most {MAX_FILES} files in all). Their
deployments follow this file's own; their `http_options` are merged key by key, and a contradiction is an error that shows both
places. `name` and `app_dir` stand in the including file only.

`defaults` fills in what the deployments of its file, and of the files that it includes, leave out. Nearer wins: the deployment,
then its file's defaults, then those of the including file. `ray_actor_options`, `rollout` and `autoscaling_config` are merged key by
key; anything else is taken whole. `num_replicas` in a deployment puts a default `autoscaling_config` aside, and the other way round.
"""


def docs_page() -> str:
    """docs/spec.md."""
    known = entries()
    parts = [_INTRO, "## Fields\n", _costs()]
    for path, entry in known.items():
        if entry.keys and not path.startswith("defaults."):
            parts.append(_section(entry, known))
    parts.append(_codes())
    return "\n".join(parts)


def _section(entry: Entry, known: dict[str, Entry]) -> str:
    title = f"`{entry.path}`" if entry.path else "Top level"
    if entry.path == "defaults":
        keys = ", ".join(f"`{path.rpartition('.')[2]}`" for path in entry.keys)
        return f"### {title}\n\n{entry.meaning} Its keys are those of a deployment, with the same meaning:\n{keys}.\n"
    rows = ["| key | type | default | change | meaning |", "|---|---|---|---|---|"]
    rows += [_row(known[path]) for path in entry.keys]
    shown = [(path, [example for example in known[path].examples if example is not None]) for path in entry.keys]
    examples = "\n".join(example_yaml(path, values[-1]) for path, values in shown if values)
    return "\n".join([f"### {title}\n", f"{entry.meaning}\n", *rows, f"\n```yaml\n{examples}\n```\n"])


def _row(entry: Entry) -> str:
    default = "required" if entry.default is None else entry.default if " " in entry.default else f"`{entry.default}`"
    cells = (f"`{entry.path.rpartition('.')[2]}`", entry.type, default, str(entry.cost), entry.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _costs() -> str:
    rows = [f"| `{cost}` | {words} |" for cost, words in COSTS.items()]
    return "\n".join(["What a change of a field costs the traffic:\n", "| change | means |", "|---|---|", *rows, ""])


def _codes() -> str:
    rows = [f"| `{code}` | {meaning} |" for code, meaning in CODES.items()]
    return "\n".join(["## Problem codes\n", "| code | means |", "|---|---|", *rows, ""])
