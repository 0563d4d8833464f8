"""What the controller knows of one actor, kept true by a task that watches it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from serveconf.cluster.actors import kill_actor
from serveconf.cluster.asking import ask
from serveconf.cluster.logs import get_logger
from serveconf.plan.state import ProxyPhase, ProxyState, ReplicaPhase, ReplicaState
from serveconf.reconcile.ports import Counters, LogPart, ProxyOrder, ReplicaOrder, Totals
from serveconf.routing import Generation

log = get_logger("cluster")

UNHEALTHY_AFTER = 3  # health checks in a row that must fail
KILL_GRACE_S = 5.0  # beyond the drain time
PROXY_START_S = 30.0
PROXY_SILENT_S = 0.2  # between two tries to reach a proxy that Ray is restarting


_COLOR = re.compile("\x1b\\[[0-9;]*m")
_EXIT = "Worker exit detail:"


class _Watched:
    """One actor and the task that watches it."""

    def __init__(self, actor: Any, changed: Callable[[], None]) -> None:
        self._actor = actor
        self._changed = changed
        self._task: asyncio.Task[None] | None = None

    def _watch(self, work: Any) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(work)

    def _stop(self, work: Any, gone: Callable[[], object]) -> None:
        async def stop() -> None:
            try:
                await work
            except (RayError, TimeoutError) as error:
                log.info("an actor ended before it was drained", reason=type(error).__name__)
            if self._actor is not None:
                kill_actor(self._actor)
            gone()
            self._changed()

        self._watch(stop())


class WatchedReplica(_Watched):
    """A replica, from its start to its end."""

    def __init__(
        self, actor: Any, state: ReplicaState, changed: Callable[[], None], order: ReplicaOrder | None
    ) -> None:
        super().__init__(actor, changed)
        self.state = state
        self._period_s, self._timeout_s, self._ready_s = _health_times(order)

    @classmethod
    def started(cls, order: ReplicaOrder, actor: Any, changed: Callable[[], None]) -> WatchedReplica:
        """Watch a replica that was just started."""
        watched = cls(actor, _state_of(order), changed, order)
        watched._watch(watched._live())
        return watched

    @classmethod
    def refused(cls, order: ReplicaOrder, reason: str, changed: Callable[[], None]) -> WatchedReplica:
        """A replica that Ray would not even start."""
        state = replace(_state_of(order), phase=ReplicaPhase.FAILED, message=reason)
        changed()
        return cls(None, state, changed, order)

    @classmethod
    async def adopt(cls, actor: Any, changed: Callable[[], None]) -> WatchedReplica:
        """Watch a replica that another controller started."""
        order: ReplicaOrder = await ask(actor.order.remote())
        watched = cls(actor, await ask(actor.describe.remote()), changed, order)
        if watched.state.phase is ReplicaPhase.DRAINING:  # nobody waits for its end any more
            watched.stop(order.deployment.spec.get("graceful_shutdown_timeout_s", 20.0), gone=lambda: None)
        else:
            watched._watch(watched._live())
        return watched

    async def look(self) -> None:
        """Ask it how many requests it has."""
        if self.state.phase is not ReplicaPhase.READY:
            return
        try:
            now: ReplicaState = await ask(self._actor.describe.remote(), 0.5)
            self.state = replace(self.state, ongoing=now.ongoing, tcp=now.tcp)
        except (RayError, TimeoutError):
            return

    async def reconfigure(self, user_config: Any, config_hash: str) -> tuple[str, str] | None:
        """Hand a user_config over."""
        refused: tuple[str, str] | None = await ask(
            self._actor.reconfigure.remote(user_config, config_hash), self._ready_s
        )
        if refused is None:
            self.state = replace(self.state, config_hash=config_hash)
        return refused

    async def read_log(self, position: Mapping[str, int] | None, tail: int) -> LogPart:
        """What its process has written."""
        part: LogPart = await ask(self._actor.read_log.remote(position, tail))
        return part

    async def listen_tcp(self) -> str:
        """Have it listen for other nodes."""
        address: str = await ask(self._actor.listen_tcp.remote())
        self.state = replace(self.state, tcp=address)
        return address

    def stop(self, drain_s: float, *, gone: Callable[[], object]) -> None:
        """Drain and kill it."""
        if self.state.phase is ReplicaPhase.DRAINING and self._task is not None:
            return
        ready = self.state.phase in (ReplicaPhase.READY, ReplicaPhase.UNHEALTHY, ReplicaPhase.DRAINING)
        self.state = replace(self.state, phase=ReplicaPhase.DRAINING)
        self._stop(self._drain(drain_s) if ready else _nothing(), gone)

    async def _drain(self, drain_s: float) -> None:
        await ask(self._actor.drain.remote(drain_s), drain_s + KILL_GRACE_S)

    async def _live(self) -> None:
        try:
            self._become(await ask(self._actor.wait_ready.remote(), self._ready_s))
            await self._watch_health()
        except TimeoutError:
            await self._explain_lateness()
        except RayError as error:
            self._become(replace(self.state, phase=ReplicaPhase.FAILED, message=_why_dead(error)))

    async def _watch_health(self) -> None:
        """Until it dies: check its health each period, and hear of its death at once."""
        if self.state.phase is ReplicaPhase.FAILED:
            return
        death = asyncio.ensure_future(ask(self._actor.closed.remote(), None))
        failures = 0
        try:
            while True:
                await asyncio.wait([death], timeout=self._period_s)
                if death.done():
                    death.result()
                failures = failures + 1 if await self._unwell() else 0
                if failures == UNHEALTHY_AFTER:
                    self._become(replace(self.state, phase=ReplicaPhase.UNHEALTHY))
        finally:
            death.cancel()

    async def _unwell(self) -> bool:
        try:
            wrong: str = await ask(self._actor.check.remote(), self._timeout_s + 5)
        except TimeoutError:
            wrong = "the replica does not answer"
        if wrong:
            log.warning("health check failed", replica=self.state.id, reason=wrong)
        self.state = replace(self.state, message=wrong)
        return bool(wrong)

    async def _explain_lateness(self) -> None:
        """Not ready in time: say whether it was never placed or does not get through its start."""
        try:
            await ask(self._actor.describe.remote(), 1.0)
            why = "its import, constructor or lifespan start-up has not returned"
        except TimeoutError:
            why = "Ray has found no place for it: see ray_actor_options and what the nodes have free"
        self._become(
            replace(self.state, phase=ReplicaPhase.FAILED, message=f"not ready after {self._ready_s:g} s: {why}")
        )

    def _become(self, state: ReplicaState) -> None:
        self.state = state
        self._changed()


class WatchedProxy(_Watched):
    """A proxy, from its start to its end. Ray restarts it when it dies; it comes back with the stored generation."""

    def __init__(self, actor: Any, state: ProxyState, changed: Callable[[], None], port: int) -> None:
        super().__init__(actor, changed)
        self.state = state
        self.port = port

    @classmethod
    def started(cls, order: ProxyOrder, actor: Any, changed: Callable[[], None]) -> WatchedProxy:
        """Watch a proxy that was just started."""
        state = ProxyState(
            id=order.id,
            node_id=order.node_id,
            phase=ProxyPhase.STARTING,
            listener=order.listener,
            address=f"{order.host}:{order.port}",
        )
        watched = cls(actor, state, changed, order.port)
        watched._watch(watched._live())
        return watched

    @classmethod
    async def adopt(cls, actor: Any, changed: Callable[[], None]) -> WatchedProxy:
        """Watch a proxy that another controller started."""
        order: ProxyOrder = await ask(actor.order.remote(), PROXY_START_S)
        watched = cls.started(order, actor, changed)
        watched._become(await ask(actor.describe.remote()))
        return watched

    async def stage(self, generation: Generation, timeout_s: float) -> tuple[str, str, bool] | None:
        """Have it build a generation; None, or (message, traceback, whether the user's code is to blame)."""
        refused: tuple[str, str, bool] | None = await ask(self._actor.stage.remote(generation), timeout_s)
        return refused

    async def commit(self, number: int) -> None:
        """Have it serve the staged generation."""
        await ask(self._actor.commit.remote(number))
        self.state = replace(self.state, generation=number)

    async def abort(self, number: int) -> None:
        """Have it forget a staged generation."""
        await ask(self._actor.abort.remote(number))

    async def count(self, operation: str, *, begin: bool) -> Counters:
        """Begin to count, or read."""
        counted: Counters = await ask(self._actor.count.remote(operation, begin))
        return counted

    async def totals(self) -> Totals:
        """What its process has counted."""
        counted: Totals = await ask(self._actor.totals.remote())
        return counted

    def stop(self, drain_s: float, *, gone: Callable[[], object]) -> None:
        """Drain and kill it."""
        if self.state.phase is ProxyPhase.DRAINING:
            return
        ready = self.state.phase is ProxyPhase.READY
        self.state = replace(self.state, phase=ProxyPhase.DRAINING)
        self._stop(ask(self._actor.drain.remote(drain_s), drain_s + KILL_GRACE_S) if ready else _nothing(), gone)

    async def _live(self) -> None:
        """Until it is stopped: wait for it, hear of its death, wait for it again."""
        while True:
            try:
                self._become(await ask(self._actor.wait_ready.remote(), PROXY_START_S))
                if self.state.phase is ProxyPhase.FAILED:
                    return
                await ask(self._actor.closed.remote(), None)
            except ActorUnavailableError:
                log.warning("a proxy died and is restarted", proxy=self.state.id)
            except (RayError, TimeoutError) as error:  # Ray does not restart it: it could not even be made
                why = _why_dead(error) if isinstance(error, RayError) else "the proxy does not start"
                self._become(replace(self.state, phase=ProxyPhase.FAILED, message=why))
                return
            self._become(replace(self.state, phase=ProxyPhase.STARTING, generation=0))
            await asyncio.sleep(PROXY_SILENT_S)

    def _become(self, state: ProxyState) -> None:
        self.state = state
        self._changed()


async def _nothing() -> None:
    return None


def _state_of(order: ReplicaOrder) -> ReplicaState:
    return ReplicaState(
        id=order.id,
        stack=order.stack,
        deployment=order.deployment.name,
        version=order.deployment.version,
        phase=ReplicaPhase.STARTING,
        config_hash=order.deployment.config_hash,
    )


def _health_times(order: ReplicaOrder | None) -> tuple[float, float, float]:
    spec = order.deployment.spec if order else {}
    ready_s = order.ready_timeout_s if order else 60.0
    return spec.get("health_check_period_s", 10.0), spec.get("health_check_timeout_s", 30.0), ready_s


def _why_dead(error: RayError) -> str:
    """One line of Ray's explanation, which has many: the exception that was raised, or how the process ended."""
    lines = [line.strip() for line in _COLOR.sub("", str(error)).splitlines() if line.strip()]
    if isinstance(error, ActorDiedError) and "creation task" in "".join(lines[:1]):
        why = lines[-1]
    else:
        why = next((line for line in lines if _EXIT in line), lines[0] if lines else type(error).__name__)
    return f"the process ended: {why.rpartition(_EXIT)[2].strip()}"[:300]
