"""Ray as the engine: the one place that imports it, with ``ray_groups`` and ``ray_session``, and the one actor class.

Names are Ray's actor names in our namespace, so that whoever connects to the cluster finds everything again. Ray's many
errors become three: dead is dead only where Ray says so, whatever can pass by itself is asked again.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, cast

import ray
from ray._private.state import available_resources_per_node, state
from ray._raylet import IMPLICIT_RESOURCE_PREFIX  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serveconf.cluster.engine import Away, EngineError, Gone, Place, Refused, Remote, Silent, Surroundings
from serveconf.cluster.gcs import Gcs
from serveconf.cluster.hosted import Hosted, set_up_process
from serveconf.cluster.ray_groups import bundle_nodes, end_group, group_names, in_group
from serveconf.cluster.settings import HEAD_RESOURCE, NAMESPACE, REPLICA_PREFIX, STANDBY_PREFIX
from serveconf.cluster.variables import expanded, split
from serveconf.errors import EngineSilent, OperatorError
from serveconf.reconcile.ports import NodeState, Store

_COLOR = re.compile("\x1b\\[[0-9;]*m")
_EXIT = "Worker exit detail:"

SMALLEST = 10_000  # parts that Ray counts of a resource
# Ray lets go of calls to an actor that it restarts a second or two after it has heard of the end; asked for the state it tells at once
RESTARTING = ActorTableData.ActorState.RESTARTING
HEAR_S = 0.1

_gcs = Gcs((RayError,))  # as Ray's own connection one for the whole process


class Actor:
    """The only Ray actor: a hosted object of some kind. Named after its kind where Ray shows it."""

    def __init__(self, kind: str, args: tuple[Any, ...], variables: Mapping[str, str] = {}) -> None:
        """``variables``: what Ray was not told, since it would write it where others read; before anything is imported."""
        os.environ.update(expanded(variables))
        set_up_process()
        context = ray.get_runtime_context()
        with warnings.catch_warnings():  # Ray calls what it has deprecated, and would say so in every app's log
            warnings.simplefilter("ignore")
            restarted = context.was_current_actor_reconstructed
        surroundings = Surroundings(
            store=RayStore(),
            node_id=context.get_node_id(),
            node_ip=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
            restarted=restarted,
            own_process=True,
            bundle_nodes=bundle_nodes(),
        )
        self._hosted = Hosted(kind, args, surroundings)

    async def call(self, method: str, *args: Any) -> Any:
        """See Hosted."""
        return await self._hosted.call(method, args)

    async def closed(self) -> None:
        """See Hosted."""
        await self._hosted.closed()


class RayRemote:
    """Implements ``engine.Remote``."""

    def __init__(self, actor: Any, name: str) -> None:
        self.actor = actor
        self.name = name
        self._restarts = not name.startswith((REPLICA_PREFIX, STANDBY_PREFIX))

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """See the port."""
        return await _answer(lambda: self.actor.call.remote(method, *args), timeout_s)

    async def closed(self) -> None:
        """See the port."""
        end = asyncio.ensure_future(_answer(self.actor.closed.remote, None))
        try:
            while not end.done():
                await asyncio.wait([end], timeout=HEAR_S if self._restarts else None)
                if not end.done() and self.actor._get_local_state() == RESTARTING:
                    raise Away("its process has ended, and is started anew")
            end.result()
        finally:
            end.cancel()


class RayEngine:
    """Implements ``engine.Engine`` on the cluster that this process is connected to."""

    def __init__(self) -> None:
        self._store = RayStore()
        self._starting: set[str] = set()  # until who starts them knows them

    @property
    def store(self) -> Store:
        """Ray's GCS key-value store: it lives as long as the cluster, whatever dies in it."""
        return self._store

    async def start(self, name: str, kind: str, args: tuple[Any, ...], place: Place) -> Remote:
        """See the port."""
        # in a thread: Ray waits for its GCS to note the name, on a busy machine for half a second
        begun = asyncio.ensure_future(_gcs.do(start_actor, name, kind, args, place))
        self._starting.add(name)
        try:
            return RayRemote(await asyncio.shield(begun), name)
        except asyncio.CancelledError:  # nobody would know it
            begun.add_done_callback(partial(_end_begun, name))
            raise
        except (ValueError, TypeError, RayError) as error:  # options that Ray refuses
            raise Refused(str(error)) from error
        finally:
            self._starting.discard(name)

    async def find(self, name: str) -> Remote | None:
        """See the port."""
        try:
            return RayRemote(await _gcs.ask(ray.get_actor, name, namespace=NAMESPACE), name)
        except ValueError:
            return None

    async def names(self) -> list[str]:
        """See the port."""
        named = await _gcs.ask(ray.util.list_named_actors, all_namespaces=True)
        ours = (actor["name"] for actor in named if actor["namespace"] == NAMESPACE)
        return [name for name in ours if name not in self._starting]

    async def kill(self, remote: Remote, *, restart: bool = False) -> None:
        """See the port."""
        assert isinstance(remote, RayRemote)
        try:
            await _gcs.do(kill_actor, remote.actor, restart=restart)
        except RayError as error:
            raise _mapped(error) from error
        finally:
            if not restart and remote.name.startswith(REPLICA_PREFIX):  # only they have groups
                await _gcs.do(_end_group, remote.name)

    async def tidy(self) -> None:
        """See the port."""
        groups = await _gcs.ask(
            group_names
        )  # first: whose group is there now is named afterwards, or just being started
        if groups:
            for name in groups - self._starting - set(await self.names()):
                await _gcs.do(_end_group, name)

    async def nodes(self) -> tuple[NodeState, ...]:
        """See the port."""
        nodes, free, draining = await _gcs.ask(_nodes)
        return tuple(
            NodeState(
                id=node["NodeID"],
                is_head=HEAD_RESOURCE in node["Resources"],
                ip=node["NodeManagerAddress"],
                port=node["NodeManagerPort"],
                total=dict(node["Resources"]),
                available=dict(free.get(node["NodeID"], {})),
                labels=dict(node["Labels"]),
                drains=node["NodeID"] in draining,
            )
            for node in nodes
            if node["Alive"]
        )

    def silent_for(self) -> float | None:
        """See the port."""
        return _gcs.silent_for()

    async def run(
        self, function: Any, *args: Any, runtime_env: dict[str, Any], timeout_s: float, node_id: str = ""
    ) -> Any:
        """See the port."""
        # Ray would keep its process and give it to an actor: with this version of us, whatever is installed
        task = ray.remote(max_calls=1)(function).options(
            num_cpus=0,
            runtime_env=runtime_env,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False) if node_id else "DEFAULT",
        )
        return await _answer(lambda: task.remote(*args), timeout_s)


class RayStore:
    """Implements ``reconcile.ports.Store``."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        found: bytes | None = await _stored(internal_kv._internal_kv_get, key.encode())
        return found

    async def put(self, key: str, value: bytes) -> None:
        """Write the value."""
        await _stored(internal_kv._internal_kv_put, key.encode(), value, overwrite=True)

    async def delete(self, key: str) -> None:
        """Forget the key."""
        await _stored(internal_kv._internal_kv_del, key.encode())

    async def keys(self, prefix: str) -> list[str]:
        """All keys that start so."""
        found: list[bytes] = await _stored(internal_kv._internal_kv_list, prefix.encode())
        return sorted(key.decode() for key in found)


@cache
def _remote_class() -> Any:
    """Made once: Ray writes the class of each that is made to its store, for every process to read."""
    return ray.remote(Actor)


def start_actor(name: str, kind: str, args: tuple[Any, ...], place: Place, *, get_if_exists: bool = False) -> Any:
    """Have Ray start a detached actor. A replica is never restarted as it is: a new one is started."""
    runtime_env, variables = split(place.runtime_env)
    extra: dict[str, Any] = {
        key: value
        for key, value in {
            "memory": place.memory,
            "resources": {**place.resources, **_share(place)},
            "accelerator_type": place.accelerator_type,
            "label_selector": place.label_selector,
            "fallback_strategy": [{"label_selector": one} for one in place.fallbacks],
            "runtime_env": runtime_env,
            "get_if_exists": get_if_exists,
        }.items()
        if value
    }
    if place.bundles:
        with in_group(name, place, extra.pop("label_selector", None)) as first:
            return _begin(name, place, first, extra).remote(kind, args, variables)
    strategy: Any = "SPREAD"  # by itself Ray fills one node first: its end would take all replicas
    if place.node_id:
        strategy = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
    elif place.prefers:
        strategy = NodeAffinitySchedulingStrategy(place.prefers, soft=True, _spill_on_unavailable=True)
    return _begin(name, place, strategy, extra).remote(kind, args, variables)


def _begin(name: str, place: Place, strategy: Any, extra: Mapping[str, Any]) -> Any:
    return _remote_class().options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        max_restarts=-1 if place.restarts else 0,
        num_cpus=place.num_cpus,
        num_gpus=place.num_gpus,
        scheduling_strategy=strategy,
        **extra,
    )


def _end_group(name: str) -> None:
    try:
        end_group(name)
    except RayError as error:
        raise _mapped(error) from error


def _share(place: Place) -> dict[str, float]:
    """Ray counts for us: of a resource with this prefix every node has 1. Each share is rounded down to what Ray can tell."""
    if place.per_node is None:
        return {}
    return {IMPLICIT_RESOURCE_PREFIX + place.counts_as: math.floor(SMALLEST / place.per_node) / SMALLEST}


def find_actor(name: str) -> Any | None:
    """The actor of that name, for who has no event loop."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def call_actor(actor: Any, method: str, *args: Any, timeout_s: float) -> Any:
    """Its answer, for who has no event loop. Raises OperatorError where there is none."""
    try:
        return ray.get(actor.call.remote(method, *args), timeout=timeout_s)
    except RayError as error:
        raise OperatorError(f"the controller does not answer: {_mapped(error)}", code="ray_unreachable") from error


def kill_actor(actor: Any, *, restart: bool = False) -> None:
    """End its process, for good or for Ray to start it anew.

    Whose creation was under way when Ray's head was lost runs on when Ray says that it is dead (2.60: "not been assigned a lease"), so
    it is told, too.
    """
    if not restart:
        actor.call.remote("end_soon")
    ray.kill(actor, no_restart=not restart)


async def _stored(function: Any, *args: Any, **kwargs: Any) -> Any:
    return await _gcs.ask(function, *args, namespace=NAMESPACE.encode(), **kwargs)


def _end_begun(name: str, begun: asyncio.Future[Any]) -> None:
    """Beside: what is asked of the GCS may take its time."""
    if not begun.cancelled() and begun.exception() is None:
        _gcs.beside(_end_actor, begun.result(), name)


def _end_actor(actor: Any, name: str) -> None:
    try:
        kill_actor(actor)
    finally:
        if name.startswith(REPLICA_PREFIX):
            _end_group(name)


def _nodes() -> tuple[list[dict[str, Any]], dict[str, Any], Any]:
    """The nodes, what each has free, and those that drain."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    if not nodes:  # there is always the head: Ray has given up to ask
        raise EngineSilent(None)
    return nodes, available_resources_per_node(), state.get_draining_nodes()  # type: ignore[no-untyped-call]


async def _answer(ask: Callable[[], Any], timeout_s: float | None) -> Any:
    try:
        answer = asyncio.wrap_future(ask().future())
        async with asyncio.timeout(timeout_s):
            return await answer
    except RayTaskError as error:  # what the method raised
        raise cast(BaseException, error.cause) if isinstance(error.cause, Exception) else error from None
    except (TimeoutError, GetTimeoutError):
        raise Silent("no answer") from None
    except RayError as error:
        raise _mapped(error) from error


def _mapped(error: RayError) -> EngineError:
    if isinstance(error, ActorUnavailableError):
        return Away("out of reach")
    if isinstance(error, ActorDiedError | ActorUnschedulableError | RuntimeEnvSetupError | RayActorError):
        return Gone(_why(error))
    return Away(f"{type(error).__name__}: {error}".partition("\n")[0])


def _why(error: RayError) -> str:
    """One line of Ray's explanation, which has many: the exception that was raised, or how the process ended."""
    lines = [line.strip() for line in _COLOR.sub("", str(error)).splitlines() if line.strip()]
    if isinstance(error, ActorDiedError) and "creation task" in "".join(lines[:1]):
        why = lines[-1]
    else:
        why = next((line for line in lines if _EXIT in line), lines[0] if lines else type(error).__name__)
    return f"the process ended: {why.rpartition(_EXIT)[2].strip()}"[:300]
