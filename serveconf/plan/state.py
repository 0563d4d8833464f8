"""What plan and reconcile compare: what a stack should be, and what is there. Frozen data, and look-ups in it.

The controller builds ``DesiredStack`` from a spec and what preflight learned of its code, and ``Observed`` from the
live actors. Both can be encoded as JSON with msgspec (the store keeps desired stacks as they were applied).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from serveconf.routing import Middleware

K = TypeVar("K", bound=Hashable)


class DesiredDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment as it should run. ``spec`` is its YAML mapping with every default filled in."""

    name: str
    prefix: str | None  # where it is mounted; None: not reachable over HTTP
    num_replicas: int
    version: str  # hash of all that makes a replica different: spec fields of cost roll, and the code it imports
    own_version: str = ""  # the same of it alone, where ``version`` is that of a process that it shares
    code: str  # digest of the code package that its replicas import from
    app_dir: str | None = None  # the folder that was applied, for the replicas' working directory
    modules: dict[str, str] = {}  # files it imports from the package and data files: path -> content hash (for reasons)
    spec: dict[str, Any] = {}
    config_hash: str = ""  # hash of user_config
    middlewares: tuple[Middleware, ...] = ()
    middleware_modules: dict[str, str] = {}  # files that its middlewares import: path -> content hash
    policy: Middleware | None = None  # the function that decides on the number of replicas, and the code it comes from
    policy_modules: dict[str, str] = {}  # files that it imports: path -> content hash
    masks: dict[str, str] = {}  # "init_kwargs.password" -> "${DB_PASSWORD}": what to show instead of the value
    operations: tuple[str, ...] = ()  # "GET /items/{id}", as preflight found them
    room: int | None = None  # how many new replicas fit beside the old ones, where that is fewer than max_surge
    bound: str = ""  # of a deployment inside a bound application: its name there; ``name`` is then "ENTRY.BOUND"
    looked_among: str = (
        ""  # a hash of which Python files there were when its code was looked at: with others it may import others
    )
    installed: tuple[str, ...] = ()  # installed modules that its import brings, for standbys to import beforehand
    graph: tuple[
        dict[str, Any], ...
    ] = ()  # of a bound application's ingress: what the others are (name, options, calls)
    formerly: tuple[str, ...] = ()  # names under which it was served, the latest first: see ``moving``
    options: dict[str, Any] = {}  # defaults that the imported deployment object brings, under the file's own keys

    @property
    def entry(self) -> str:
        """The deployment of the file that it belongs to."""
        return self.name.removesuffix(f".{self.bound}") if self.bound else self.name


class DesiredStack(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One stack as it should be. ``http_options`` holds only the keys that its file sets."""

    name: str
    revision: int
    http_options: dict[str, Any] = {}
    http_middlewares: tuple[Middleware, ...] = ()
    http_middleware_modules: dict[str, str] = {}  # files that they import: path -> content hash
    masks: dict[
        str, str
    ] = {}  # "middlewares[0].kwargs.key" -> "${KEY}": what to show of http_options instead of the value
    deployments: tuple[DesiredDeployment, ...] = ()
    code: str = ""  # digest of the package that it was made from; what did not change may keep an older one
    said_app_dir: str = "."  # how the file names it
    standbys: int = 1  # warm processes per node and kind of replica

    def deployment(self, name: str) -> DesiredDeployment | None:
        """The deployment of that name."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, DesiredDeployment]:
        return {deployment.name: deployment for deployment in self.deployments}


class Phase(StrEnum):
    """Where a replica or a proxy stands in its life."""

    STARTING = "Starting"
    READY = "Ready"
    UNHEALTHY = "Unhealthy"  # its checks fail, or it does not answer
    DRAINING = "Draining"
    FAILED = "Failed"  # it ended, or it never got ready; ``message`` says why


ReplicaPhase = Phase
ProxyPhase = Phase


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as it is."""

    id: str
    stack: str
    deployment: str
    version: str
    phase: ReplicaPhase
    config_hash: str = ""
    node_id: str = ""
    pid: int = 0
    uds: str = ""
    tcp: str | None = None
    ongoing: int = 0
    message: str = ""
    started: float = 0.0  # when its process began to be a replica, in seconds since the epoch; 0: not known yet
    host: str = ""  # the name of its node
    was_standby: bool = False  # it started in a process that was there already
    start_cpu_s: float = 0.0  # of a core, that its process had used when it was ready
    cut_short: bool = (
        False  # ... which has ended before it was ready: the next start tells whether its code is to blame
    )
    serveconf: str = ""  # the version of serveconf that it runs; empty: not known yet
    process: str = ""  # of several replicas in one process: what they have in common; empty: it is alone
    bundle_nodes: tuple[str, ...] = ()  # of its placement group: on which node each bundle is
    code: str = ""  # of what it failed with, where that is no fault of its code
    goes: bool = False  # it leaves because of a replica beside it, and is well itself: ``processes.seen_together``


class ProxyState(msgspec.Struct, frozen=True, kw_only=True):
    """One proxy process as it is. ``listener`` is the hash of host, port and whatever else needs a new listener."""

    id: str
    node_id: str
    phase: ProxyPhase
    listener: str = ""
    pid: int = 0
    generation: int = 0
    address: str = ""
    message: str = ""
    serveconf: str = ""  # the version of serveconf that it runs; empty: not known yet
    stands_by: bool = False  # another one serves the port; this one takes it when that one ends


class StandbyState(msgspec.Struct, frozen=True, kw_only=True):
    """One process that waits to become a replica of some kind."""

    id: str
    kind: str
    node_id: str
    phase: Phase
    pid: int = 0
    message: str = ""
    serveconf: str = ""  # the version of serveconf that it runs; empty: not known yet


class Observed(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """All that is there at one moment."""

    replicas: tuple[ReplicaState, ...] = ()
    proxies: tuple[ProxyState, ...] = ()
    standbys: tuple[StandbyState, ...] = ()

    def of(self, stack: str, deployment: str) -> tuple[ReplicaState, ...]:
        """The replicas of one deployment."""
        return self._by_deployment.get((stack, deployment), ())

    def of_stack(self, stack: str) -> tuple[ReplicaState, ...]:
        """The replicas of one stack."""
        return self._by_stack.get(stack, ())

    @cached_property
    def proxy_places(self) -> tuple[tuple[str, str, ProxyPhase], ...]:
        """Which proxies there are, and where, whatever they serve just now."""
        return tuple((p.id, p.node_id, p.phase) for p in self.proxies)

    @cached_property
    def processes(self) -> dict[str, tuple[ReplicaState, ...]]:
        """The replicas of each process that several share."""
        return _grouped((r for r in self.replicas if r.process), lambda r: r.process)

    @cached_property
    def _by_deployment(self) -> dict[tuple[str, str], tuple[ReplicaState, ...]]:
        return _grouped(self.replicas, lambda r: (r.stack, r.deployment))

    @cached_property
    def _by_stack(self) -> dict[str, tuple[ReplicaState, ...]]:
        return _grouped(self.replicas, lambda r: r.stack)


def _grouped(replicas: Iterable[ReplicaState], key: Callable[[ReplicaState], K]) -> dict[K, tuple[ReplicaState, ...]]:
    groups: dict[K, list[ReplicaState]] = {}
    for replica in replicas:
        groups.setdefault(key(replica), []).append(replica)
    return {name: tuple(group) for name, group in groups.items()}
