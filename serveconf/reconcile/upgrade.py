"""An upgrade: proxies and replicas that run another version of serveconf make way for new ones, old and new side by side.

The controller that does it runs the new version already. First the proxies, one at a time on each node, on the port that
they share; then the replicas, stack by stack, each as a roll. What does not get ready is taken away again, and what it was
to replace goes on: both versions understand each other, so a cluster that is upgraded by half serves as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf import __version__
from serveconf.code.versions import in_edition
from serveconf.errors import ServeconfError
from serveconf.plan.state import (
    DesiredStack,
    Observed,
    Phase,
    ProxyPhase,
    ProxyState,
    ReplicaPhase,
    ReplicaState,
    StandbyState,
)
from serveconf.reconcile.apply import Deps
from serveconf.reconcile.journal import EventKind, Happening
from serveconf.reconcile.operations import Event, Operation, Standing
from serveconf.reconcile.ports import Counters
from serveconf.reconcile.records import Failure
from serveconf.reconcile.requests import NOBODY, Caller
from serveconf.reconcile.result import add_up, make_result

Roll = Callable[[str], Awaitable[Event]]  # rolls a stack's replicas; the contract's apply JSON
SERVES = (ProxyPhase.READY, ProxyPhase.UNHEALTHY)
ALIVE = (ReplicaPhase.STARTING, ReplicaPhase.READY, ReplicaPhase.UNHEALTHY)
QUIET_S = 10.0  # for what starts on a node to be through, before a proxy starts there
LOOK_S = 0.05


def old_proxies(observed: Observed) -> list[ProxyState]:
    """The proxies that serve and run another version, in order."""
    return sorted((p for p in observed.proxies if p.phase in SERVES and p.serveconf != __version__), key=lambda p: p.id)


def old_deployments(stack: DesiredStack, observed: Observed) -> frozenset[str]:
    """The stack's deployments of which a replica runs another version."""
    return frozenset(
        r.deployment for r in observed.of_stack(stack.name) if r.phase in ALIVE and r.serveconf not in ("", __version__)
    )


def upgraded(stack: DesiredStack, observed: Observed, number: int) -> DesiredStack:
    """The stack with its old deployments as ones that are to be rolled, and nothing else changed."""
    old = old_deployments(stack, observed)
    deployments = [
        replace(d, version=in_edition(d.version, __version__)) if d.name in old else d for d in stack.deployments
    ]
    return replace(stack, revision=number, deployments=tuple(deployments))


def starts_on(node_id: str, observed: Observed) -> bool:
    """Whether anything starts on that node."""
    there: list[ReplicaState | ProxyState | StandbyState] = [*observed.replicas, *observed.proxies, *observed.standbys]
    return any(one.node_id == node_id and one.phase is Phase.STARTING for one in there)


class Upgrade:
    """One of them, told to its operation as it goes."""

    def __init__(self, deps: Deps, operation: Operation, roll: Roll, caller: Caller = NOBODY) -> None:
        self._deps = deps
        self._operation = operation
        self._roll = roll
        self._caller = caller
        self._counted: list[Counters] = []
        self._actions: list[dict[str, Any]] = []

    async def run(self) -> None:
        """To its end; whatever happens, the operation gets its result."""
        began = self._deps.clock.now()
        self._operation.standing = Standing.APPLYING
        try:
            outcome, failures = await self._perform()
        except ServeconfError as error:
            failure = Failure(code=error.code, message=error.message, hint=error.hint)
            outcome, failures = "rolled_back", [failure]
        except asyncio.CancelledError:
            failure = Failure(code="cancelled", message="the upgrade was cancelled", hint="'serveconf upgrade' goes on")
            outcome, failures = "failed", [failure]
        counted, proxies = [*self._counted], 0
        if outcome != "failed":
            more, proxies = await self._count_all(begin=False)
            counted += more
        seconds = self._deps.clock.now() - began
        receipt = add_up(counted, proxies=proxies + len(self._counted), duration_s=seconds)
        result = make_result(
            "",
            outcome=outcome,
            changed=bool(self._actions),
            actions=self._actions,
            receipt=msgspec.to_builtins(receipt),
            failures=failures,
        )
        self._tell_end(outcome, failures)
        self._operation.finish(result)

    async def _perform(self) -> tuple[str, list[Failure]]:
        await self._count_all(begin=True)
        nodes: dict[str, list[ProxyState]] = {}
        for proxy in old_proxies(self._deps.cluster.observe()):
            nodes.setdefault(proxy.node_id, []).append(proxy)
        done = await asyncio.gather(*(self._node(proxies) for proxies in nodes.values()), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error
        for name in self._deps.stacks.names():
            stack = self._deps.ledger.current(name)
            if stack is None or not (old := old_deployments(stack, self._deps.cluster.observe())):
                continue
            self._say(f"replicas of stack {name}: {', '.join(sorted(old))}")
            result = await self._roll(name)
            if result["outcome"] not in ("applied", "unchanged"):
                return result["outcome"], [_failure(problem) for problem in result["problems"]]
            self._actions += result["actions"]
        return ("applied" if self._actions else "unchanged"), []

    async def _node(self, proxies: list[ProxyState]) -> None:
        for proxy in proxies:
            await self._until_quiet(proxy.node_id)
            self._say(f"proxy {proxy.id} of node {proxy.node_id[:8]}")
            new = await self._deps.reconciler.proxies.start_beside(proxy)
            try:
                await self._hand_on_counting(proxy.id, new)
            finally:  # a cancel too: the new one serves, and two in one slot must not stay
                await self._deps.reconciler.proxies.retire(proxy)
            self._actions.append(
                {
                    "action": "proxy",
                    "deployment": None,
                    "cost": "proxy",
                    "reason": "upgrade",
                    "before": {"serveconf": proxy.serveconf, "proxy": proxy.id},
                    "after": {"serveconf": __version__, "proxy": new},
                }
            )

    async def _hand_on_counting(self, old: str, new: str) -> None:
        try:
            await self._deps.cluster.count(new, self._operation.id, begin=True)
            self._counted.append(await self._deps.cluster.count(old, self._operation.id, begin=False))
        except ServeconfError:  # one of them has died meanwhile: what it had counted is lost
            self._say(f"proxy {old} did not say what it had counted")

    async def _until_quiet(self, node_id: str) -> None:
        """What imports takes the cores from what serves there: one after the other, for as long as it takes at most."""
        deadline = self._deps.clock.now() + QUIET_S
        while starts_on(node_id, self._deps.cluster.observe()) and self._deps.clock.now() < deadline:
            await self._deps.clock.sleep(LOOK_S)

    async def _count_all(self, *, begin: bool) -> tuple[list[Counters], int]:
        proxies = [p for p in self._deps.cluster.observe().proxies if p.phase in SERVES]
        answers = await asyncio.gather(
            *(self._deps.cluster.count(p.id, self._operation.id, begin=begin) for p in proxies), return_exceptions=True
        )
        return [c for c in answers if isinstance(c, Counters)], len(proxies)

    def _say(self, message: str) -> None:
        self._operation.tell({"event": "phase", "phase": "upgrading", "message": message})

    def _tell_end(self, outcome: str, failures: list[Failure]) -> None:
        if outcome == "unchanged":
            return
        why = f": {failures[0].message}" if failures else ""
        message = f"the upgrade to serveconf {__version__}{self._caller} is {outcome.replace('_', ' ')}{why}"
        data = {"outcome": outcome, **self._caller.told()}
        self._deps.journal.tell(Happening(kind=EventKind.CONTROLLER, message=message, data=data))


def _failure(problem: dict[str, Any]) -> Failure:
    fields = ("code", "message", "deployment", "traceback", "hint", "path")
    return Failure(**{field: problem[field] for field in fields})
