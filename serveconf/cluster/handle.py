"""What the controller knows of one actor, kept true by a task that watches it: replicas and proxies alike.

    STARTING --ready--> READY <--checks--> UNHEALTHY --stop--> DRAINING --> gone
        |                 |  ^--------taken back, in time---------'
        '--late, died-----'--died--> FAILED  (an actor that the engine restarts is STARTING again)

It may be entered anywhere: a controller that comes back adopts actors in whatever state they are. Only "gone" is dead;
an actor that can't be reached, or is silent, is asked again.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from msgspec.structs import replace

from serveconf.cluster.engine import Away, EngineError, Gone, Remote, Silent
from serveconf.cluster.logs import get_logger
from serveconf.errors import OperatorError
from serveconf.plan.state import Phase, ProxyState, ReplicaState, StandbyState

log = get_logger("cluster")

ANSWER_S = 10.0
KILL_GRACE_S = 5.0  # beyond the drain time
RETURN_S = 1.0  # for a replica that drains to say whether it can serve on
AGAIN_S = 0.2  # between two tries to reach an actor that is away
HEAR_S = 90.0  # for news of its loop, which come after a minute at the latest
LOST_S = 5.0  # a call that waits for something is made anew
AWAY_S = 2.0  # out of reach for so long it is replaced: its node may have died, which the engine says much later

S = TypeVar("S", ReplicaState, ProxyState, StandbyState)


@dataclass(kw_only=True)
class Care:
    """How an actor is looked after.

    ``question``: method and arguments asked each period; its answer is what is wrong, or what the actor is by now.
    """

    ready_s: float  # how long it may take to get ready
    period_s: float
    question: tuple[Any, ...]
    answer_s: float  # how long the answer may take
    unhealthy_after: int  # answers in a row that say what is wrong, or none
    end_after_s: float | None = None  # silent for so long it is ended, for the engine to restart it
    returns: bool = False  # the engine restarts it when it dies
    hears_loop: bool = False  # user code runs on its event loop, and may block it
    blocked_s: float | None = None  # for so long before it is replaced; None: the question alone tells


class Ends(Protocol):
    """Who ends an actor: the engine, or what stands between it and one of several replicas of a process."""

    async def kill(self, remote: Remote, *, restart: bool = False) -> None:
        """See ``Engine.kill``."""


class Handle(Generic[S]):
    """One actor, from its start or its adoption to its end."""

    def __init__(
        self,
        engine: Ends,
        remote: Remote | None,
        state: S,
        care: Care,
        *,
        changed: Callable[[], None],
        gone: Callable[[str], None],
        last_words: Callable[[S], Awaitable[None]] | None = None,
    ) -> None:
        self._last_words: Callable[[S], Awaitable[None]] | None = last_words  # heard between its drain and its end
        self.state: S = state
        self.care = care
        self._engine = engine
        self._remote = remote
        self._changed = changed
        self._gone = gone
        self._task: asyncio.Task[None] | None = None
        self._ends_at = float("inf")
        self._may_return = False  # it was well when its end began
        self._away_since: float | None = None
        self._blocked = ""  # what is said of its event loop, while that stands still

    @property
    def remote(self) -> Remote | None:
        """Its actor."""
        return self._remote

    def watch(self) -> None:
        """Begin to keep its state true, from whatever state it is in."""
        if self.state.phase is Phase.DRAINING:
            self._task = asyncio.create_task(self._end(ANSWER_S, drains=True))
        elif self.state.phase is not Phase.FAILED:
            self._task = asyncio.create_task(self._live())

    async def ask(self, method: str, *args: Any, timeout_s: float = ANSWER_S) -> Any:
        """Its answer. Raises OperatorError where there is none, and what the method raises."""
        if self._remote is None:
            raise OperatorError(f"{self.state.id} was never started", code="no_answer")
        try:
            return await self._remote.call(method, *args, timeout_s=timeout_s)
        except EngineError as error:
            raise OperatorError(f"{self.state.id} does not answer: {error}", code="no_answer") from error

    def note(self, **fields: Any) -> None:
        """What was learned of it otherwise."""
        self._become(replace(self.state, **fields))

    def stop(self, drain_s: float) -> None:
        """Drain it, end it; told once more, it is the shorter time that counts."""
        now = asyncio.get_running_loop().time()
        if self.state.phase is Phase.DRAINING and self._ends_at <= now + drain_s + KILL_GRACE_S:
            return
        drains = self.state.phase in (Phase.READY, Phase.UNHEALTHY, Phase.DRAINING) and drain_s > 0
        self._may_return = drains and (self.state.phase is Phase.READY or self._may_return)
        self._ends_at = now + drain_s + KILL_GRACE_S
        if self._task is not None:
            self._task.cancel()
        self._become(replace(self.state, phase=Phase.DRAINING))
        self._task = asyncio.create_task(self._end(drain_s, drains=drains))

    def lose(self, why: str) -> None:
        """Its node is out of reach: it serves nobody that we know of, and is asked nothing any more."""
        if self.state.phase is Phase.DRAINING:
            self.stop(0)
        elif self.state.phase is not Phase.FAILED:
            if self._task is not None:
                self._task.cancel()
            self._task = None
            self._become(replace(self.state, phase=Phase.UNHEALTHY, message=why))

    def find_again(self) -> None:
        """Its node is reached again, and nobody has ended it meanwhile: it is watched anew."""
        if self._task is None and self.state.phase is Phase.UNHEALTHY:
            self._task = asyncio.create_task(self._live())

    async def take_back(self) -> bool:
        """Have it serve on, where it was well when its drain began and the drain has closed nothing yet; asked once."""
        if self.state.phase is not Phase.DRAINING or not self._may_return:
            return False
        self._may_return = False
        ending, left_s = self._task, max(0.0, self._ends_at - KILL_GRACE_S - asyncio.get_running_loop().time())
        if ending is not None:
            ending.cancel()
        try:
            returns = bool(await self._call("take_back", timeout_s=RETURN_S))
        except EngineError:
            returns = False
        if self._task is not ending:  # it was stopped once more meanwhile
            return False
        if returns:
            self._ends_at = float("inf")
            self._become(replace(self.state, phase=Phase.READY))
            self._task = asyncio.create_task(self._live())
        else:
            self._task = asyncio.create_task(self._end(left_s, drains=True))
        return returns

    def let_go(self) -> None:
        """Watch it no more; it goes on."""
        if self._task is not None:
            self._task.cancel()

    # -- its life ---------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            try:
                if self.state.phase is Phase.STARTING:
                    await self._get_ready()
                if self.state.phase is Phase.FAILED:
                    return
                if self.state.phase is Phase.DRAINING:  # since before it was adopted, which it said too late
                    self.watch()
                    return
                await self._stay()
            except Gone as gone:
                self._become(_ended(self.state, str(gone)))
                return
            except Away:
                self._note_away()
                await asyncio.sleep(AGAIN_S)
            except Exception:  # nobody else watches it: whatever a look runs into, the next one is made
                log.exception("an actor could not be looked at", actor=self.state.id)
                await asyncio.sleep(AGAIN_S)

    def _note_away(self) -> None:
        if self.state.phase is Phase.STARTING:
            return
        if self.care.returns:
            log.warning("an actor died and is restarted", actor=self.state.id)
            self._begin_anew()
            return
        now = asyncio.get_running_loop().time()
        self._away_since = self._away_since or now
        if now - self._away_since >= AWAY_S:
            self._become(replace(self.state, phase=Phase.UNHEALTHY, message="out of reach"))

    async def _get_ready(self) -> None:
        try:
            state = await self._when_ready()
        except Silent:
            why = await self._why_late()
            self._become(
                replace(self.state, phase=Phase.FAILED, message=f"not ready after {self.care.ready_s:g} s: {why}")
            )
            return
        if type(state) is not type(self.state):
            state = replace(self.state, phase=Phase.FAILED, message="its process never became what it was to be")
        self._become(_still_there(state, self.state))

    async def _when_ready(self) -> S:
        """What it is when it is ready, or has failed. Asked anew now and then: a call may be lost, and nobody hears of it."""
        now = asyncio.get_running_loop().time
        until = now() + self.care.ready_s
        while True:
            left_s = until - now()
            try:
                state: S = await self._call("wait_ready", timeout_s=min(left_s, LOST_S))
                return state
            except Silent:
                if left_s <= LOST_S:
                    raise

    async def _why_late(self) -> str:
        """Whether it was never placed, or does not get through its start."""
        try:
            state: S = await self._call("describe", timeout_s=1.0)
        except Silent:
            started = await self.is_placed()
            if started:
                return "its import, constructor or lifespan start-up has not returned, and blocks its event loop"
            why = "Ray has found no place for it: see ray_actor_options, max_replicas_per_node and what the nodes have free"
            return self.state.message or why
        return state.message or "its import, constructor or lifespan start-up has not returned"

    async def is_placed(self) -> bool:
        """Whether there is a process of it, whatever that does."""
        try:
            await self._call("read_log", None, 0, timeout_s=1.0)
        except Silent:
            return False
        return True

    async def _stay(self) -> None:
        """Until it ends: ask how it is each period, and hear of its end at once."""
        assert self._remote is not None
        end = asyncio.ensure_future(self._remote.closed())
        heard = asyncio.ensure_future(self._hear_loop())
        failures, silent_since = 0, None
        pause_s = self.care.period_s if self.state.phase is Phase.READY else AGAIN_S
        try:
            while True:
                await asyncio.wait([end], timeout=pause_s)
                pause_s = self.care.period_s
                if end.done():
                    end.result()
                    return
                wrong, silent = await self._how_it_is()
                now = asyncio.get_running_loop().time()
                silent_since = (silent_since or now) if silent else None
                failures = failures + 1 if wrong else 0
                self._judge(wrong, failures)
                limit = self.care.end_after_s
                if silent_since is not None and limit is not None and now - silent_since >= limit:
                    log.error("an actor is silent and is restarted", actor=self.state.id, silent_s=limit)
                    await self._engine.kill(self._remote, restart=True)
                    self._begin_anew()
                    return
        finally:
            end.cancel()
            heard.cancel()

    async def _hear_loop(self) -> None:
        """Say that its event loop stands still, and since when; what does so for too long is unhealthy."""
        now, since, self._blocked = asyncio.get_running_loop().time, 0.0, ""
        while self.care.hears_loop:
            limit_s = self.care.blocked_s if self._blocked and self.state.phase is Phase.READY else None
            left_s = HEAR_S if limit_s is None else min(HEAR_S, max(0.0, since + limit_s - now()))
            try:
                blocked_s: float = await self._call("blocked", bool(self._blocked), timeout_s=left_s)
            except Silent:
                if limit_s is not None and now() - since >= limit_s:
                    self._become(replace(self.state, phase=Phase.UNHEALTHY, message=self._blocked))
            except Exception:  # noqa: BLE001 - it is away or gone, as others hear, or of a version that does not tell
                return
            else:
                if bool(blocked_s) != bool(self._blocked):
                    since = now() - blocked_s
                    self._blocked = _blocked_since(blocked_s, self.state) if blocked_s else ""
                    self._become(replace(self.state, message=self._blocked))

    async def _how_it_is(self) -> tuple[str, bool]:
        """What is wrong with it, and whether it is silent."""
        try:
            answer: str | ProxyState = await self._call(*self.care.question, timeout_s=self.care.answer_s)
        except Silent:
            return "it does not answer", True
        self._away_since = None
        if isinstance(answer, str):
            return answer, False
        if isinstance(self.state, ProxyState):
            if answer.pid != self.state.pid:
                raise Away("it died unheard, and another process is in its place")
            self._become(replace(self.state, stands_by=answer.stands_by))
        return answer.message, False

    def _judge(self, wrong: str, failures: int) -> None:
        phase = self.state.phase
        if wrong:
            log.warning("health check failed", actor=self.state.id, reason=wrong)
            phase = Phase.UNHEALTHY if failures >= self.care.unhealthy_after else phase
        elif phase is Phase.UNHEALTHY and not self._blocked:
            phase = Phase.READY
        self._become(replace(self.state, phase=phase, message=self._blocked or wrong))

    async def _end(self, drain_s: float, *, drains: bool) -> None:
        try:
            async with asyncio.timeout(drain_s + KILL_GRACE_S):
                while drains:
                    drains = not await self._has_drained(drain_s)
                    if not drains and self._last_words is not None:
                        await self._last_words(self.state)
        except TimeoutError:
            log.info("an actor did not drain in time", actor=self.state.id)
        except EngineError as error:
            log.info("an actor ended before it was drained", actor=self.state.id, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the user's shutdown may raise anything: it ends all the same
            log.warning("an actor's drain failed", actor=self.state.id, reason=repr(error))
        try:
            if self._remote is not None:
                await self._engine.kill(self._remote)
        except EngineError as error:
            log.warning("an actor could not be ended", actor=self.state.id, reason=str(error))
        finally:
            self._gone(self.state.id)
            self._changed()

    async def _has_drained(self, drain_s: float) -> bool:
        """False where it can't be told just now: what runs on it goes on until it hears of it."""
        try:
            await self._call("drain", drain_s, timeout_s=drain_s + KILL_GRACE_S)
        except Away:
            await asyncio.sleep(AGAIN_S)
            return False
        return True

    async def _call(self, method: str, *args: Any, timeout_s: float) -> Any:
        if self._remote is None:
            raise Gone("it was never started")
        return await self._remote.call(method, *args, timeout_s=timeout_s)

    def _begin_anew(self) -> None:
        fields: dict[str, Any] = {"generation": 0} if isinstance(self.state, ProxyState) else {}
        self._become(replace(self.state, phase=Phase.STARTING, **fields))

    async def end_now(self) -> None:
        """Its process, without a drain."""
        if self._remote is not None:
            await self._engine.kill(self._remote)

    def _become(self, state: S) -> None:
        if state != self.state:
            self.state = state
            self._changed()


def _still_there(state: S, before: S) -> S:
    """A replica does not know of those beside it."""
    if isinstance(state, ReplicaState) and isinstance(before, ReplicaState):
        return replace(state, process=before.process)
    return state


def _blocked_since(seconds: float, state: Any) -> str:
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    why = "an async def computes, or waits without await"
    return f"the event loop of pid {state.pid} has been blocked since {since:%H:%M:%S} UTC: {why}"


def _ended(state: S, why: str) -> S:
    """Its process is no more."""
    if isinstance(state, ReplicaState) and state.was_standby and state.phase is Phase.STARTING:
        return replace(state, phase=Phase.FAILED, message=why, cut_short=True)
    return replace(state, phase=Phase.FAILED, message=why)
