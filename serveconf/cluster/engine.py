"""What the Ray room needs of an engine: start, find, names, kill, nodes, and a key-value store. Half a dozen verbs.

``ray_engine`` is Ray, ``testing.FakeEngine`` is this process. An actor is a ``Hosted`` object, called by name; what can
go wrong with a call is one of three things, whatever the engine calls them.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from serveconf.reconcile.ports import NodeState, Store


class EngineError(Exception):
    """A call that has no answer."""


class Gone(EngineError):
    """The actor is dead, or could never be made; its message is one line that says why."""


class Away(EngineError):
    """The actor can't be reached just now: the engine restarts it, or the network is cut. Ask again."""


class Silent(EngineError):
    """The actor is there and does not answer in time."""


class Refused(EngineError):
    """The engine would not even try to start it: options that mean nothing to it."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an actor may run and what it takes there. ``node_id``: there and nowhere else; empty: spread over the nodes,
    on the one that it ``prefers`` where that has room.
    """

    node_id: str = ""
    prefers: str = ""
    num_cpus: float = 0
    num_gpus: float = 0
    memory: float | None = None
    resources: dict[str, float] = {}
    accelerator_type: str | None = None
    label_selector: dict[str, str] = {}
    fallbacks: list[dict[str, str]] = []  # label selectors, where no node of the first one has room
    bundles: list[
        dict[str, float]
    ] = []  # a group of these for the actor, which is in the first one; it ends with the actor
    strategy: str = ""  # how the bundles lie on the nodes
    counts_as: str = ""  # of what counts as the same ...
    per_node: int | None = None  # ... so many may be on one node at most
    runtime_env: dict[str, Any] = {}
    restarts: bool = False  # by the engine, as often as it dies


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a hosted object is told of where it runs."""

    store: Store
    node_id: str
    node_ip: str
    restarted: bool = False  # by the engine, after a former life
    bundle_nodes: tuple[str, ...] = ()  # of the actor's group: on which node each bundle is
    own_process: bool = False  # nothing else runs in its process, nor writes to its output
    was_standby: bool = False  # the process was there, and warm, before it was told what it is


class Remote(Protocol):
    """One actor, seen from another process."""

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """The answer of its hosted object. Raises Gone, Away or Silent, and whatever the method raises."""

    async def closed(self) -> None:
        """Never returns: raises Gone or Away when the actor's process ends or can't be reached any more."""


class Engine(Protocol):
    """Starts actors and knows them by name, also those that a former process of ours has started."""

    @property
    def store(self) -> Store:
        """Small durable values by key."""

    async def start(self, name: str, kind: str, args: tuple[Any, ...], place: Place) -> Remote:
        """Begin to start an actor that outlives this process: a hosted object of ``kind``. Raises Refused."""

    async def find(self, name: str) -> Remote | None:
        """The actor of that name."""

    async def names(self) -> list[str]:
        """The names of all actors of ours."""

    async def kill(self, remote: Remote, *, restart: bool = False) -> None:
        """End its process, for good, with its group, or for the engine to restart it."""

    async def tidy(self) -> None:
        """End the groups of actors that are no more: of those that have died while nobody saw it."""

    async def nodes(self) -> tuple[NodeState, ...]:
        """The nodes that live."""

    def silent_for(self) -> float | None:
        """For how many seconds the engine's bookkeeping has not answered: nothing is started meanwhile. None: it answers."""

    async def run(
        self, function: Any, *args: Any, runtime_env: dict[str, Any], timeout_s: float, node_id: str = ""
    ) -> Any:
        """The result of a function that is called once, in a process of its own in that environment, on that node or on any."""
