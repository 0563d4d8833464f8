"""Which replica this process is, and for which request the code that asks runs.

The replica calls ``enter_replica`` once, and whoever answers a request sets ``request`` in that request's own task.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from serveconf.tracing import Span

MODEL_ID_HEADER = b"serve_multiplexed_model_id"  # Ray Serve's name


class Cancellable(Protocol):
    """A call that was made for a request."""

    def cancel(self) -> Any:
        """Nobody waits for it any more."""


@dataclass(eq=False)
class Request:
    """One request while it is answered: what it came with, and the calls that it has made of other deployments."""

    headers: list[tuple[bytes, bytes]]
    generation: int = 0  # of the routing table that it began with; 0: whichever is current
    calls: set[Cancellable] = field(default_factory=set)
    span: Span | None = None  # where it is traced

    @property
    def model_id(self) -> str:
        """Which of several models it is for; empty where it does not say."""
        said = next((value for key, value in self.headers if key == MODEL_ID_HEADER), b"")
        try:
            return said.decode()
        except UnicodeDecodeError:
            return said.decode("latin-1")

    def header(self, name: bytes) -> str:
        """The value of a header; empty where it has none."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    def cancel_calls(self) -> None:
        """Whoever waited for this request has left, and so for what it has asked of others."""
        for call in list(self.calls):
            call.cancel()


@dataclass(frozen=True)
class ReplicaID:
    """How a replica is called."""

    unique_id: str
    deployment: str


@dataclass(frozen=True, kw_only=True)
class ReplicaContext:
    """Who this replica is. ``servable_object``: the instance of the user's class, or the function; None while it is made."""

    app_name: str
    deployment: str
    replica_tag: str
    servable_object: Any = field(default=None, repr=False)
    stack: str = field(default="", repr=False)

    @property
    def replica_id(self) -> ReplicaID:
        """As Ray Serve names it."""
        return ReplicaID(self.replica_tag, self.deployment)


class ModelsHeld(Protocol):
    """Who makes it known which models a replica has."""

    def came(self, model_id: str) -> None:
        """It is loaded, or about to be."""

    def went(self, model_id: str) -> None:
        """It is here no more."""


@dataclass(kw_only=True)
class Replica:
    """This process's replica. ``ongoing``: how many requests it is at; ``models``: where those that it has are told."""

    context: ReplicaContext
    max_ongoing: int
    ongoing: Callable[[], int]
    name: str = ""  # of its deployment, as its log lines are marked with it
    models: ModelsHeld | None = None


request: ContextVar[Request | None] = ContextVar("request", default=None)
_room: ContextVar[Replica | None] = ContextVar("room", default=None)
_replica: Replica | None = None


def enter_replica(replica: Replica | None) -> None:
    """This process is this replica from now on; None: it is none."""
    global _replica
    _replica = replica


def enter_room(replica: Replica | None) -> None:
    """What runs in this task from now on, and what it starts, runs for this one of the process's replicas."""
    _room.set(replica)


def the_room() -> Replica | None:
    """Of a process with several replicas the one that the code that asks runs for; None: nobody can tell, or it has but one."""
    return _room.get()


def the_replica() -> Replica | None:
    """The replica that this process is, or that of its replicas that the code runs for; None: it is none."""
    return _room.get() or _replica


def get_replica_context() -> ReplicaContext:
    """Who the replica is that this code runs in. Raises RuntimeError anywhere else."""
    replica = the_replica()
    if replica is None:
        raise RuntimeError("serve.get_replica_context() was called outside of a replica, where there is none")
    return replica.context


def get_multiplexed_model_id() -> str:
    """The model that the current request is for: its header ``serve_multiplexed_model_id``, or its handle's option."""
    current = request.get()
    return "" if current is None else current.model_id
