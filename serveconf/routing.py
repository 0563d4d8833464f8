"""One generation of the data plane as frozen data: the HTTP front and who answers below which prefix.

The controller builds it, every proxy stages and then commits it, and a restarted proxy finds the last one in the store.
It is encoded as JSON with ``encode`` and ``decode``; who takes a request is a pure function of it (``matching``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Middleware(msgspec.Struct, frozen=True, omit_defaults=True):
    """A middleware to build: an import path found below the folder of code package ``code`` (or in site-packages)."""

    import_path: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    code: str | None = None  # digest of the code package that its import starts from


class ReplicaAddress(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one replica listens for ASGI frames."""

    id: str
    node_id: str
    uds: str  # path of its unix socket, for proxies on the same node
    tcp: str | None = None  # "host:port", for proxies on other nodes


Conditions = tuple[tuple[str, str | None], ...]  # name → the value that it must have, None: any; sorted by name


class Match(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which of the requests below its prefix a route takes. What is empty is not looked at."""

    hosts: tuple[str, ...] = ()  # in lower case, "*.b.example" for all that end so
    methods: tuple[str, ...] = ()
    headers: Conditions = ()  # names in lower case
    query: Conditions = ()


class Mirror(msgspec.Struct, frozen=True, omit_defaults=True):
    """Copies of a route's requests go to another deployment of its stack too."""

    deployment: str
    percent: float = 100.0


class SessionAffinity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a request says which session it belongs to. All of one session go to one replica."""

    header: str | None = "x-session-id"
    cookie: str | None = None


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything below ``prefix`` that fits ``match`` is answered by one deployment."""

    prefix: (
        str  # "/" or "/a/b", never with a trailing slash; "" where only handles, or copies of others' requests, come
    )
    stack: str
    deployment: str
    replicas: tuple[ReplicaAddress, ...] = ()
    version: str = ""
    middlewares: tuple[Middleware, ...] = ()
    max_ongoing_requests: int = 100
    max_queued_requests: int = -1
    request_timeout_s: float | None = None  # already merged: the deployment's, else the front's
    replica_wait_s: float = 60.0  # how long a request waits while there is no replica: as long as one may take to start
    hopeless: bool = False  # its replicas keep failing: with none left a request is not made to wait for the next
    graceful_shutdown_timeout_s: float = 20.0
    match: Match | None = None
    mirror: Mirror | None = None
    session_affinity: SessionAffinity | None = None
    formerly: tuple[str, ...] = ()  # names that the deployment had: who waits, or calls it, under one of them finds it
    calls: bool = (
        False  # its replicas call others by handle: with each request they are told by which generation it came
    )
    share: float | None = None  # of a canary: the percentage of the deployment's requests that its new version gets
    sticky: str | None = None  # ... and the cookie that keeps a client on its side


class Tracing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where spans go, and of which share of the requests."""

    endpoint: str
    sample: float = 1.0


class Front(msgspec.Struct, frozen=True, omit_defaults=True):
    """What holds for every request of the cluster; listeners (host, port, workers) are the controller's business."""

    root_path: str = ""
    keep_alive_timeout_s: float = 90.0
    body_timeout_s: float = 60.0
    send_timeout_s: float = 60.0
    max_request_body_bytes: int | None = None
    max_request_target_bytes: int = 65_536
    max_request_field_bytes: int = 65_536
    max_request_fields: int = 1_000
    max_request_head_bytes: int = 131_072
    request_id_header: str | None = "x-request-id"
    forwarded_allow_ips: str = (
        "127.0.0.1,::1"  # whose X-Forwarded-For and -Proto are believed: addresses, networks or "*"
    )
    middlewares: tuple[Middleware, ...] = ()
    access_log: str | None = None  # json, combined, or none
    tracing: Tracing | None = None


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a proxy serves at one time. Numbers only grow."""

    number: int
    front: Front = Front()
    routes: tuple[Route, ...] = ()

    @property
    def public(self) -> tuple[Route, ...]:
        """The routes that proxies need: those that requests are matched with, and those that get copies of them."""
        copied = {(route.stack, route.mirror.deployment) for route in self.routes if route.prefix and route.mirror}
        return tuple(route for route in self.routes if route.prefix or (route.stack, route.deployment) in copied)


def encode(generation: Generation) -> bytes:
    """The generation as JSON bytes."""
    return msgspec.json.encode(generation)


def decode(data: bytes) -> Generation:
    """The generation from what ``encode`` gave."""
    return msgspec.json.decode(data, type=Generation)


CALLERS = "callers/"  # where in the store those processes have put their names whose code calls others by handle


def beginning_key(stack: str) -> str:
    """Where in the store the routes of a stack lie that begin to be served: ``reconcile.beginning``."""
    return f"beginning/{stack}"


def encode_routes(routes: tuple[Route, ...]) -> bytes:
    """The routes as JSON bytes."""
    return msgspec.json.encode(routes)


def decode_routes(data: bytes) -> tuple[Route, ...]:
    """The routes from what ``encode_routes`` gave."""
    return msgspec.json.decode(data, type=tuple[Route, ...])


def as_match(said: Mapping[str, Any] | None) -> Match | None:
    """What a spec says under ``match``, in one spelling; None where it excludes nothing."""
    match = Match(
        hosts=tuple(sorted({host.lower() for host in (said or {}).get("hosts") or ()})),
        methods=tuple(sorted(set((said or {}).get("methods") or ()))),
        headers=tuple(sorted((name.lower(), value) for name, value in ((said or {}).get("headers") or {}).items())),
        query=tuple(sorted(((said or {}).get("query") or {}).items())),
    )
    return None if match == Match() else match


@dataclass(frozen=True)
class PrefixTable(Generic[T]):
    """Longest prefix wins, at a path boundary. A match costs as much as the longest prefix is deep, whatever the path."""

    by_prefix: dict[str, T] = field(default_factory=dict)
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "longest", max(map(len, self.by_prefix), default=0))

    def match(self, path: str) -> T | None:
        """What stands for ``path``: ``/a`` takes ``/a``, ``/a/`` and ``/a/c``, never ``/ab``."""
        table = self.by_prefix
        end = len(path)
        if end > self.longest:  # what is deeper than any prefix need not be looked at: a client can send many slashes
            end = path.rfind("/", 0, self.longest + 1)
        while end > 0:
            found = table.get(path[:end])
            if found is not None:
                return found
            end = path.rfind("/", 0, end)
        return table.get("/")
