"""The one HTTP front of the cluster, put together from what its stacks say of it: pure.

Each stack's file sets some keys of ``http_options``; together they must not contradict each other. The result gives the
``Front`` of the next generation and the listeners (one proxy process each) that must exist on the nodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from serveconf.errors import Conflict
from serveconf.plan.fields import shown
from serveconf.plan.state import DesiredStack, ProxyPhase, ProxyState
from serveconf.reconcile.ports import NodeState, ProxyOrder
from serveconf.routing import Front, Middleware, Tracing
from serveconf.spec.claims import Claim, claims_of
from serveconf.spec.models import HttpOptions, Location


class HttpFront(msgspec.Struct, frozen=True, kw_only=True):
    """All http_options of the cluster, with defaults where no stack says anything."""

    options: dict[str, Any]
    middlewares: tuple[Middleware, ...] = ()
    standbys: bool = False  # a proxy that is alone on its node has one

    @property
    def location(self) -> Location:
        """Where proxies run."""
        return Location(self.options["location"])

    def as_front(self) -> Front:
        """The part that a generation carries."""
        fields = {name: self.options[name] for name in Front.__struct_fields__ if name in self.options}
        tracing = msgspec.convert(self.options.get("tracing"), Tracing | None)
        return Front(**{**fields, "middlewares": self.middlewares, "tracing": tracing})


def merge_fronts(stacks: Collection[DesiredStack]) -> HttpFront:
    """The front that all stacks together ask for. Raises Conflict, naming both stacks, where two say different things."""
    said: dict[str, tuple[DesiredStack, Any]] = {}
    middlewares: tuple[Middleware, ...] = ()
    for stack in sorted(stacks, key=lambda s: s.name):
        for key, value in stack.http_options.items():
            first, other = said.setdefault(key, (stack, value))
            if other != value:
                raise Conflict(
                    f"http_options.{key} of stack '{stack.name}' {_unlike(key, stack, first)}",
                    hint="stacks on one cluster share one HTTP front: give both the same value, or leave the key out of one",
                )
            if key == "middlewares":
                middlewares = stack.http_middlewares
    defaults = HttpOptions().model_dump(mode="json")
    options = {**defaults, **{key: value for key, (_, value) in said.items()}}
    standbys = options["workers"] == 1 and any(stack.standbys for stack in stacks)
    return HttpFront(options=options, middlewares=middlewares, standbys=standbys)


def _unlike(key: str, stack: DesiredStack, first: DesiredStack) -> str:
    """How they differ. What is more than a plain value is not shown: it is the other team's, and may hold what is secret."""
    mine, theirs = (shown(one.http_options[key], key, one.masks) for one in (stack, first))
    if isinstance(mine, (Mapping, list)) or isinstance(theirs, (Mapping, list)):
        return f"is not what stack '{first.name}' serves with"
    return f"is {mine!r}, but stack '{first.name}' serves with {theirs!r}"


def said_by(stacks: Iterable[DesiredStack]) -> dict[str, Any]:
    """The http_options that any of the stacks sets; they agree, or they would not serve side by side."""
    return {key: value for stack in stacks for key, value in stack.http_options.items()}


def check_prefixes(stacks: Iterable[DesiredStack]) -> None:
    """Raises Conflict, naming both, where two stacks claim the same requests, or two deployments exactly the same ones."""
    owners: dict[Claim | frozenset[Claim], tuple[str, str]] = {}
    for stack in sorted(stacks, key=lambda s: s.name):
        for deployment in stack.deployments:
            claims = claims_of(deployment.prefix, deployment.spec.get("match"))
            keys: list[Claim | frozenset[Claim]] = [claims, *sorted(claims, key=str)] if claims else []
            for claim in keys:
                owner = owners.setdefault(claim, (stack.name, deployment.name))
                if owner[0] != stack.name or (claim is claims and owner[1] != deployment.name):
                    raise Conflict(
                        f"route_prefix {deployment.prefix} of deployment '{deployment.name}' (stack '{stack.name}') is "
                        f"taken by deployment '{owner[1]}' (stack '{owner[0]}')",
                        hint="give one of them another route_prefix, or another match",
                    )


LISTENER_KEYS = ("host", "port", "ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "http2")
_LATER_KEYS = ("ssl_keyfile_password",)  # newer ones: where they are not set, a listener's hash is what it always was


def listener_of(options: Mapping[str, Any]) -> str:
    """A short hash of what a listening socket is made of: another hash means another proxy process."""
    later = {key: options[key] for key in _LATER_KEYS if options.get(key) is not None}
    said = msgspec.json.encode({key: options.get(key) for key in LISTENER_KEYS} | later)
    return hashlib.sha256(said).hexdigest()[:8]


def wanted_proxies(front: HttpFront, nodes: Sequence[NodeState]) -> tuple[ProxyOrder, ...]:
    """The proxy processes that should run: on the head node, on every node, or none. A standby comes last on its node."""
    match front.location:
        case Location.NO_SERVER:
            places: list[NodeState] = []
        case Location.HEAD_ONLY:
            places = [node for node in nodes if node.is_head]
        case Location.EVERY_NODE:
            places = list(nodes)
    listener, workers = listener_of(front.options), front.options["workers"]
    return tuple(
        ProxyOrder(
            id=f"{node.id[:12]}-{listener}-{index if index < workers else 's'}",
            node_id=node.id,
            index=index,
            host=front.options["host"],
            port=front.options["port"],
            listener=listener,
            shares_port=index in (0, workers),
            stands_by=index == workers,
            **{key: front.options[key] for key in (*LISTENER_KEYS, *_LATER_KEYS) if key not in ("host", "port")},
        )
        for node in sorted(places, key=lambda node: node.id)
        for index in range(workers + front.standbys)
    )


def slot_of(proxy_id: str) -> str:
    """The place that a proxy fills, which is the id of the order that asked for it: an upgrade puts another one in it."""
    return proxy_id.partition("~")[0]


def is_its_turn(order: ProxyOrder, proxies: Iterable[ProxyState]) -> bool:
    """Whether a worker may start: the first one makes sure that the port is nobody else's, then the others share it."""
    return order.index == 0 or any(
        p.phase is ProxyPhase.READY and (p.node_id, p.listener) == (order.node_id, order.listener) for p in proxies
    )
