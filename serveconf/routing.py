"""One generation of the data plane as frozen data: the HTTP front and who answers below which prefix.

The controller builds it, every proxy stages and then commits it, and a restarted proxy finds the last one in the store.
It is encoded as JSON with ``encode`` and ``decode``; matching a path is a pure function of ``RoutingTable``.
"""

from __future__ import annotations

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


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything below ``prefix`` is answered by one deployment."""

    prefix: str  # "/" or "/a/b", never with a trailing slash
    stack: str
    deployment: str
    replicas: tuple[ReplicaAddress, ...] = ()
    version: str = ""
    middlewares: tuple[Middleware, ...] = ()
    max_ongoing_requests: int = 100
    max_queued_requests: int = -1
    request_timeout_s: float | None = None  # already merged: the deployment's, else the front's
    graceful_shutdown_timeout_s: float = 20.0


class Front(msgspec.Struct, frozen=True, omit_defaults=True):
    """What holds for every request of the cluster; listeners (host, port, workers) are the controller's business."""

    root_path: str = ""
    keep_alive_timeout_s: float = 90.0
    max_request_body_bytes: int | None = None
    forwarded_allow_ips: str = (
        "127.0.0.1,::1"  # whose X-Forwarded-For and -Proto are believed: addresses, networks or "*"
    )
    middlewares: tuple[Middleware, ...] = ()
    access_log: str | None = None  # json, combined, or none


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a proxy serves at one time. Numbers only grow."""

    number: int
    front: Front = Front()
    routes: tuple[Route, ...] = ()


def encode(generation: Generation) -> bytes:
    """The generation as JSON bytes."""
    return msgspec.json.encode(generation)


def decode(data: bytes) -> Generation:
    """The generation from what ``encode`` gave."""
    return msgspec.json.decode(data, type=Generation)


@dataclass(frozen=True)
class PrefixTable(Generic[T]):
    """Longest prefix wins, at a path boundary. The cost of a match grows with the path's depth, not with the table."""

    by_prefix: dict[str, T] = field(default_factory=dict)

    def match(self, path: str) -> T | None:
        """What stands for ``path``: ``/a`` takes ``/a``, ``/a/`` and ``/a/c``, never ``/ab``."""
        table = self.by_prefix
        end = len(path)
        while end > 0:
            found = table.get(path[:end])
            if found is not None:
                return found
            end = path.rfind("/", 0, end)
        return table.get("/")
