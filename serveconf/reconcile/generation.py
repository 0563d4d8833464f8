"""The next routing table from what each stack serves: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from serveconf.plan.state import DesiredDeployment, DesiredStack, ReplicaState
from serveconf.reconcile.front import HttpFront
from serveconf.routing import Generation, Mirror, ReplicaAddress, Route, as_match

Serving = Mapping[tuple[str, str], tuple[ReplicaState, ...]]  # (stack, deployment) -> the replicas that answer for it


def build_generation(number: int, front: HttpFront, stacks: Iterable[DesiredStack], serving: Serving) -> Generation:
    """Everything the proxies serve, in one piece; routes sorted by prefix so that equal content is equal data."""
    routes = [
        make_route(stack.name, deployment, serving.get((stack.name, deployment.name), ()), front)
        for stack in stacks
        for deployment in stack.deployments
    ]
    return Generation(
        number=number,
        front=front.as_front(),
        routes=tuple(sorted(routes, key=lambda r: (r.prefix, r.stack, r.deployment))),
    )


def make_route(
    stack: str, deployment: DesiredDeployment, replicas: tuple[ReplicaState, ...], front: HttpFront
) -> Route:
    """One deployment's route, served by these replicas."""
    spec = deployment.spec
    timeout = spec.get("request_timeout_s")
    return Route(
        prefix=deployment.prefix or "",
        stack=stack,
        deployment=deployment.name,
        version=deployment.version,
        replicas=tuple(
            ReplicaAddress(id=r.id, node_id=r.node_id, uds=r.uds, tcp=r.tcp)
            for r in sorted(replicas, key=lambda r: r.id)
        ),
        middlewares=deployment.middlewares,
        max_ongoing_requests=spec.get("max_ongoing_requests", 100),
        max_queued_requests=spec.get("max_queued_requests", -1),
        request_timeout_s=front.options.get("request_timeout_s") if timeout is None else timeout,
        graceful_shutdown_timeout_s=spec.get("graceful_shutdown_timeout_s", 20.0),
        match=as_match(spec.get("match")),
        mirror=Mirror(**spec["mirror"]) if spec.get("mirror") else None,
    )


def same_content(one: Generation, other: Generation) -> bool:
    """Whether two generations serve the same, whatever their numbers."""
    return one.front == other.front and one.routes == other.routes


def serving_ids(generation: Generation) -> frozenset[str]:
    """Ids of all replicas that a generation names."""
    return frozenset(replica.id for route in generation.routes for replica in route.replicas)
