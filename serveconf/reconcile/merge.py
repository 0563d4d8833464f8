"""A request with ``merge``: what it names is put beside, or in place of, what the stack has; the rest stays as it is. Pure.

The Python API deploys one object at a time this way, and no script has to know what another one has deployed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec.structs import replace

from serveconf.errors import NotFound
from serveconf.plan.processes import with_processes
from serveconf.plan.state import DesiredStack


def merged_stack(made: DesiredStack, current: DesiredStack | None, *, alone: bool = False) -> DesiredStack:
    """``current`` with the deployments and the http_options keys of ``made``; ``alone``: with no other deployments."""
    if current is None:
        return made
    replaced = {d.entry for d in made.deployments}  # with all that was bound to them
    kept = () if alone else [d for d in current.deployments if d.entry not in replaced]
    deployments = {d.name: d for d in (*kept, *made.deployments)}
    front = made if "middlewares" in made.http_options else current
    merged = replace(
        made,
        http_options={**current.http_options, **made.http_options},
        http_middlewares=front.http_middlewares,
        http_middleware_modules=front.http_middleware_modules,
        masks={**current.masks, **made.masks},
        deployments=tuple(deployments[name] for name in sorted(deployments)),
        said_app_dir=current.said_app_dir,
        standbys=current.standbys,
        code="",  # several packages: nothing may be told from one digest
    )
    return with_processes(merged)


def merged_spec(said: dict[str, Any], before: dict[str, Any], *, alone: bool = False) -> dict[str, Any]:
    """The same of two specs, for the history."""
    if alone:
        before = {key: value for key, value in before.items() if key != "deployments"}
    deployments = {d["name"]: d for d in (*before.get("deployments", ()), *said.get("deployments", ()))}
    spec = {**before, **said, "deployments": list(deployments.values())}
    http_options = {**before.get("http_options", {}), **said.get("http_options", {})}
    return _with_its_moves(spec | ({"http_options": http_options} if http_options else {}))


def spec_without(before: dict[str, Any], deployments: Collection[str] | None) -> dict[str, Any]:
    """A spec less some of its deployments; less all of them and its say in the front where None are named."""
    if deployments is None:
        return {key: before[key] for key in ("name",) if key in before}
    kept = [d for d in before.get("deployments", ()) if d["name"] not in deployments]
    return _with_its_moves({**before, "deployments": kept})


def _with_its_moves(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec without items of ``moved`` that lead to what it does not declare, or from what it does: as it may be said."""
    if not spec.get("moved"):
        return spec
    names = {d["name"] for d in spec["deployments"]}
    following = {block["from"]: block["to"] for block in spec["moved"] if block["from"] not in names}

    def leads_somewhere(name: str) -> bool:
        for _ in following:  # at most through all of them
            if name in names:
                break
            name = following.get(name, name)
        return name in names

    moved = [{"from": old, "to": new} for old, new in following.items() if leads_somewhere(new)]
    rest = {key: value for key, value in spec.items() if key != "moved"}
    return {**rest, "moved": moved} if moved else rest


def stack_without(current: DesiredStack, deployments: list[str] | None, number: int) -> DesiredStack:
    """The stack less some of its deployments; less all of them and its say in the front where None are named."""
    if deployments is None:
        return replace(current, revision=number, deployments=(), http_options={}, http_middlewares=())
    unknown = [name for name in deployments if current.deployment(name) is None]
    if unknown:
        known = ", ".join(d.name for d in current.deployments) or "none"
        raise NotFound(f"stack '{current.name}' has no deployment '{unknown[0]}'", hint=f"its deployments: {known}")
    kept = tuple(d for d in current.deployments if d.entry not in deployments)
    return with_processes(replace(current, revision=number, deployments=kept))
