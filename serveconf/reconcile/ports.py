"""What the reconciler needs of the world, as protocols: a cluster, a store, a clock, and the preflight of code.

``cluster/`` implements them on Ray, ``testing`` in memory; the same contract tests run on both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import msgspec

from serveconf.figures import LoadReport, ProxyFigures, ReplicaFigures
from serveconf.plan.state import DesiredDeployment, Observed
from serveconf.routing import Generation

CONTROLLER_LOG = "controller"


class ReplicaOrder(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One replica to start. Its ``id`` is new; everything else comes from the deployment."""

    id: str
    stack: str
    deployment: DesiredDeployment
    ready_timeout_s: float


class ProcessOrder(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One process to start with several replicas in it, one of each deployment that shares it."""

    id: str
    replicas: tuple[ReplicaOrder, ...]

    @property
    def stack(self) -> str:
        """All are of one stack."""
        return self.replicas[0].stack

    @property
    def deployment(self) -> DesiredDeployment:
        """The one that says what the process asks for: all of them say the same."""
        return self.replicas[0].deployment


class StandbyOrder(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One process to keep warm on one node, for any replica that asks for just these options of Ray."""

    id: str
    node_id: str
    kind: str  # see ``asked.kind_of``
    options: dict[str, Any]  # those ray_actor_options that make the kind
    modules: tuple[str, ...] = ()  # installed ones, to be imported beforehand


class ProxyOrder(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One proxy process to start on one node. The id is derived from node, index and listener, so it is the same after a crash."""

    id: str
    node_id: str
    index: int
    host: str
    port: int
    listener: str
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None
    http2: bool = False
    shares_port: bool = False  # with its standby, or as one: one of them serves, and the next when that one ends
    stands_by: bool = False  # it is there for another one's end


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """One live node of the cluster: what it has in all and what is free, in Ray's resource names."""

    id: str
    is_head: bool
    ip: str = ""
    port: int = 0  # where the engine's own process on it listens
    total: dict[str, float] = {}
    available: dict[str, float] = {}
    labels: dict[str, str] = {}
    drains: bool = False  # it will go soon: nothing new is placed there


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Code to look at: objects and middlewares by import path, each with its arguments, in one package and environment."""

    code: str  # digest of the package; empty: none
    app_dir: str | None  # the working directory, where this node has it
    targets: list[dict[str, Any]]
    middlewares: list[dict[str, Any]]
    runtime_env: dict[str, Any]
    timeout_s: float  # for each of them


class TargetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the throw-away process learned of one import path."""

    ok: bool
    kind: str | None = None
    error: str | None = None
    traceback: str | None = None
    hint: str | None = None
    modules: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    installed: tuple[str, ...] = ()  # installed modules that were imported for it
    graph: tuple[dict[str, Any], ...] = ()  # the other deployments of a bound application: name, options, calls


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What one proxy, or all of them, counted since an apply began."""

    requests: int = 0
    failed: int = 0
    retried: int = 0
    max_gap_ms: float = 0.0
    streams_kept: int = 0
    streams_closed: int = 0


class Answers(msgspec.Struct, frozen=True):
    """How many answers were given; ``failed``: those of 500 and above, and those that were cut."""

    given: int = 0
    failed: int = 0


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What one proxy process has counted since it began. ``deployments``: by ``stack/deployment``."""

    pid: int = 0
    requests: int = 0
    failed: int = 0
    retried: int = 0
    open_streams: int = 0
    deployments: dict[str, Answers] = {}
    figures: ProxyFigures = msgspec.field(default_factory=ProxyFigures)


class LogPart(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that a replica's process has written, and how far they go in each of its streams (in bytes)."""

    lines: tuple[str, ...] = ()
    position: dict[str, int] = {}


class Cluster(Protocol):
    """The engine: replicas and proxies are started, asked and stopped through it; what it observes it tells by ``on_change``."""

    on_change: Callable[[], None]

    def observe(self) -> Observed:
        """What is there, as last seen; cheap."""

    def nodes(self) -> tuple[NodeState, ...]:
        """The live nodes."""

    def silent_for(self) -> float | None:
        """For how many seconds the engine has not answered, so that nothing can be started or written. None: it answers."""

    async def refresh(self, serving: Collection[str] = ()) -> None:
        """Look at the nodes, and find what is there by name: after a restart of the controller.

        ``serving``: the replicas that the live table names; one that does not answer is taken for ready until it dies
        or its checks fail.
        """

    async def refresh_load(self) -> None:
        """Have ``observe`` tell how many requests each replica has just now."""

    async def start_replica(self, order: ReplicaOrder) -> None:
        """Begin to start a replica, in a standby of its kind where there is one; it is observed as Starting, then Ready or
        Failed."""

    async def start_process(self, order: ProcessOrder) -> None:
        """Begin to start several replicas in one process. Each is observed by itself; the process ends with the last of them."""

    async def reconfigure(self, replica_id: str, user_config: Any, config_hash: str) -> None:
        """Hand a new user_config to a live replica. Raises CodeFailed, and then the replica keeps its old one."""

    def tend_replica(self, replica_id: str, spec: Mapping[str, Any]) -> None:
        """Check a live replica's health as this spec of its deployment says, from now on."""

    async def stop_replica(self, replica_id: str, *, drain_s: float) -> None:
        """Begin to drain and then stop a replica; it is observed as Draining, then no more. The shortest time counts."""

    async def rename_replica(self, replica_id: str, deployment: str) -> None:
        """It serves a deployment of this name from now on; it is told so when it can be. Nothing of what runs in it stops."""

    async def take_back(self, replica_id: str) -> bool:
        """Have a replica that drains serve on: it is observed as Ready again. False where it was not well, or it is too late."""

    async def start_proxy(self, order: ProxyOrder) -> None:
        """Begin to start a proxy; it is observed as Starting, then Ready or Failed."""

    async def stop_proxy(self, proxy_id: str, *, drain_s: float) -> None:
        """Begin to drain and then stop a proxy."""

    async def serve_beside(self, proxy_id: str) -> None:
        """Have a proxy that stands by serve at once, although the other one has not ended. Raises OperatorError."""

    async def stand_by_again(self, proxy_id: str) -> bool:
        """Have one that serves beside another leave new connections to that one. False where no other one holds the port:
        then it serves on. Raises OperatorError."""

    async def warn_proxy(self, proxy_id: str) -> None:
        """Have a proxy say that it is not healthy, while it serves on: who sends it requests is to look for another."""

    async def start_standby(self, order: StandbyOrder) -> None:
        """Begin to start a process that ``start_replica`` may take instead of a new one."""

    async def stop_standby(self, standby_id: str) -> None:
        """End a standby, if it is one still."""

    async def callers(self) -> tuple[str, ...]:
        """Those that are ready of the replicas whose code calls others by handle; of a process with several, one."""

    async def stage(self, server_id: str, generation: Generation) -> None:
        """Have a proxy build a generation beside the one it serves, or a caller connect to those that it calls.

        Raises CodeFailed or OperatorError; then it has none staged.
        """

    async def commit(self, server_id: str, number: int) -> None:
        """Have a proxy serve, or a caller call by, the staged generation."""

    async def abort(self, server_id: str, number: int) -> None:
        """Have a proxy or a caller forget a staged generation."""

    async def count(self, proxy_id: str, operation: str, *, begin: bool) -> Counters:
        """Begin to count for an operation (answers zeros), or read what was counted since."""

    async def totals(self, proxy_id: str) -> Totals:
        """What a proxy has counted since its process began."""

    async def load_report(self, source: str, seen: int, *, slower: float) -> LoadReport:
        """What a proxy, or a replica that calls others, has to say of their load after its report ``seen``, when there is
        something, or after a while.

        ``slower``: how much longer than usual it may take. Raises OperatorError where it does not answer.
        """

    async def replica_figures(self, replica_id: str) -> ReplicaFigures:
        """What a replica has counted since its process began."""

    async def read_log(self, process_id: str, position: Mapping[str, int] | None, tail: int) -> LogPart:
        """What a replica, a proxy or the controller (``CONTROLLER_LOG``) has written since ``position``, or its last
        ``tail`` lines. Raises OperatorError."""

    async def read_ended_log(self, node_id: str, pid: int, tail: int) -> LogPart:
        """The last lines of a process that has ended. Raises OperatorError where they are lost."""

    async def tcp_address(self, replica_id: str) -> str | None:
        """Where proxies on other nodes reach the replica; it begins to listen there when first asked."""


class Store(Protocol):
    """Small durable values by key. Survives the controller."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""

    async def put(self, key: str, value: bytes) -> None:
        """Write the value; it is durable when this returns."""

    async def delete(self, key: str) -> None:
        """Forget the key; no error where there is none."""

    async def keys(self, prefix: str) -> list[str]:
        """All keys that start so."""


class Clock(Protocol):
    """Time, so that tests can turn it by hand."""

    def now(self) -> float:
        """Seconds on a clock that only grows."""

    def wall(self) -> float:
        """Seconds since the epoch."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Preflight(Protocol):
    """Imports code in a throw-away process of the target environment."""

    async def inspect(self, question: Question) -> tuple[list[TargetReport], list[TargetReport]]:
        """What each target and each middleware is, in the given order."""
