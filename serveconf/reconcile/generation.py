"""The next routing table from the one that is live and what one stack serves: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from serveconf.plan.state import DesiredDeployment, DesiredStack, ReplicaState
from serveconf.reconcile.front import HttpFront
from serveconf.routing import Generation, Mirror, ReplicaAddress, Route, SessionAffinity, as_match

Serving = Mapping[str, tuple[ReplicaState, ...]]  # deployment -> the replicas that answer for it


@dataclass(frozen=True, kw_only=True)
class Canary:
    """The new version of a deployment that gets a share of its requests."""

    deployment: DesiredDeployment  # as it is to become
    replicas: tuple[ReplicaState, ...]
    share: float  # in percent
    sticky: str | None = None


def with_stack(
    base: Generation,
    front: HttpFront,
    routed: Iterable[DesiredStack],
    mine: str,
    serving: Serving,
    canaries: Sequence[Canary] = (),
    failing: Collection[str] = (),
) -> Generation:
    """``base`` with the routes of one stack made anew; those of the other stacks stay, under the new front.

    ``routed``: what every stack has in the table, ``mine`` the name of the one, ``serving`` the replicas that answer for
    its deployments, ``canaries`` the new versions that get a share, ``failing`` the deployments whose replicas do not start.
    Routes are sorted by prefix, so that equal content is equal data.
    """
    stacks = {stack.name: stack for stack in routed}
    routes = [
        _with_front(route, stacks[route.stack].deployment(route.deployment), front)
        for route in base.routes
        if route.stack != mine and route.stack in stacks
    ]
    if mine in stacks:
        own = {
            d.name: make_route(mine, d, serving.get(d.name, ()), front, failing=d.name in failing)
            for d in stacks[mine].deployments
        }
        routes += own.values()
        routes += [canary_route(own[c.deployment.name], c, front) for c in canaries if c.deployment.name in own]
    ordered = tuple(sorted(routes, key=lambda r: (r.prefix, r.stack, r.deployment, r.share is not None)))
    return Generation(number=base.number, front=front.as_front(), routes=ordered)


def make_route(
    stack: str,
    deployment: DesiredDeployment,
    replicas: tuple[ReplicaState, ...],
    front: HttpFront,
    *,
    failing: bool = False,
) -> Route:
    """One deployment's route, served by these replicas."""
    spec = deployment.spec
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
        request_timeout_s=_timeout_s(deployment, front),
        replica_wait_s=max(60.0, spec.get("rollout", {}).get("ready_timeout_s", 60.0)),
        hopeless=failing and not replicas,
        graceful_shutdown_timeout_s=spec.get("graceful_shutdown_timeout_s", 20.0),
        match=as_match(spec.get("match")),
        mirror=Mirror(**spec["mirror"]) if spec.get("mirror") else None,
        session_affinity=_affinity(spec.get("session_affinity")),
        formerly=deployment.formerly,
        calls=bool(deployment.graph),
    )


def _affinity(said: Mapping[str, str | None] | None) -> SessionAffinity | None:
    return None if said is None else SessionAffinity(**said)


def canary_route(old: Route, canary: Canary, front: HttpFront) -> Route:
    """The new version's route: it stands where the old one stands until it is promoted. Copies are made once, by the old."""
    new = make_route(old.stack, canary.deployment, canary.replicas, front)
    return replace(new, prefix=old.prefix, match=old.match, mirror=None, share=canary.share, sticky=canary.sticky)


def _timeout_s(deployment: DesiredDeployment, front: HttpFront) -> float | None:
    own: float | None = deployment.spec.get("request_timeout_s")
    return front.options.get("request_timeout_s") if own is None else own


def _with_front(route: Route, deployment: DesiredDeployment | None, front: HttpFront) -> Route:
    if deployment is None or route.share is not None:  # a canary is of another version than the deployment here
        return route
    timeout_s = _timeout_s(deployment, front)
    return route if route.request_timeout_s == timeout_s else replace(route, request_timeout_s=timeout_s)


def same_content(one: Generation, other: Generation) -> bool:
    """Whether two generations serve the same, whatever their numbers."""
    return one.front == other.front and one.routes == other.routes


def serving_ids(generation: Generation) -> frozenset[str]:
    """Ids of all replicas that a generation names."""
    return frozenset(replica.id for route in generation.routes for replica in route.replicas)
