"""Whether replicas can ever be placed: what each asks for against what the nodes have in all. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serveconf.errors import AuthorError
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.ports import NodeState


class DoesNotFit(AuthorError):
    """No node could ever take a replica of this deployment."""

    code = "does_not_fit"

    def __init__(self, message: str, *, deployment: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.deployment = deployment


def asked_resources(options: Mapping[str, Any]) -> dict[str, float]:
    """What one replica asks for, in Ray's resource names."""
    asked = {
        "CPU": options.get("num_cpus") or 0,
        "GPU": options.get("num_gpus") or 0,
        "memory": options.get("memory") or 0,
    }
    asked |= options.get("resources") or {}
    if options.get("accelerator_type"):
        asked[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return {name: amount for name, amount in asked.items() if amount > 0}


def check_placement(desired: DesiredStack, nodes: Sequence[NodeState]) -> None:
    """Raises DoesNotFit for the first deployment of which no node could hold even one replica, saying what is missing."""
    for deployment in desired.deployments:
        asked = asked_resources(deployment.spec.get("ray_actor_options", {}))
        if not nodes or any(all(node.total.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
            continue
        most = {name: max(node.total.get(name, 0) for node in nodes) for name in asked}
        lacking = ", ".join(f"{name} {asked[name]:g} (a node has at most {most[name]:g})" for name in asked)
        raise DoesNotFit(
            f"deployment '{deployment.name}' fits on no node: each replica asks for {lacking}",
            deployment=deployment.name,
            hint="lower ray_actor_options, or add a node that has what is asked for",
        )
