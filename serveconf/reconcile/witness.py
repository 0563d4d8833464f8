"""What happened between two looks at the cluster: replicas that ended or fell ill, proxies and nodes that came or went.

The watchers of actors say only "look again"; the ``Witness`` compares what it sees and tells the journal. It acts on
nothing, so whatever it misses costs an event and no request.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from serveconf.plan.state import ProxyPhase, ProxyState, ReplicaPhase, ReplicaState
from serveconf.reconcile.journal import EventKind, Happening, Journal
from serveconf.reconcile.ports import Clock, Cluster, NodeState

T = TypeVar("T", ReplicaState, ProxyState, NodeState)

ALIVE = (ReplicaPhase.STARTING, ReplicaPhase.READY, ReplicaPhase.UNHEALTHY)
SERVES = (ProxyPhase.READY, ProxyPhase.UNHEALTHY)
MANY = 1000  # replicas, from which on a look takes its time: a roll orders thousands of them, each of which is a change
SOON_S = 0.05


class Witness:
    """Looks whenever something may have changed."""

    def __init__(self, cluster: Cluster, clock: Clock, journal: Journal) -> None:
        self._cluster = cluster
        self._clock = clock
        self._journal = journal
        self._observed, self._nodes = cluster.observe(), cluster.nodes()  # what was there before is no news
        self._began: dict[str, float] = {}  # replicas that are starting
        self._lost: Counter[tuple[str, str, str]] = Counter()  # replicas of a version that nothing has replaced yet
        self._soon: asyncio.TimerHandle | None = None

    def heed(self) -> None:
        """Something may have changed: look, where there are many replicas once for all that changes within a moment."""
        if len(self._observed.replicas) < MANY:
            self.look()
        elif self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self.look)

    def look(self) -> None:
        """Tell what is new since the last look."""
        self._soon = None
        before, self._observed = self._observed, self._cluster.observe()
        for old, new in changes(before.replicas, self._observed.replicas):
            self._journal.tell(replica_changed(old, new))
            self._follow(old, new)
        for was, proxy in changes(before.proxies, self._observed.proxies):
            self._journal.tell(proxy_changed(was, proxy))
        nodes = self._cluster.nodes()
        if nodes:  # there is always one: nothing is known just now
            known, self._nodes = self._nodes, nodes
            for left, came in changes(known, nodes):
                self._journal.tell(node_changed(left, came))

    def _follow(self, old: ReplicaState | None, new: ReplicaState | None) -> None:
        """How long starts take, and what takes the place of what was lost."""
        one = new or old
        assert one is not None
        version = (one.stack, one.deployment, one.version)
        if old is None and one.phase is ReplicaPhase.STARTING:
            self._began[one.id] = self._clock.now()
        elif new is None or new.phase is not ReplicaPhase.STARTING:
            began = self._began.pop(one.id, None)
            if began is not None and new is not None and new.phase is ReplicaPhase.READY:
                seconds = self._clock.now() - began
                self._journal.figures.started(f"{new.stack}/{new.deployment}", seconds, standby=new.was_standby)
                if self._lost[version] > 0:
                    self._lost[version] -= 1
                    self._journal.tell(_replaced(new, seconds))
        if _was_lost(old, new):
            self._lost[version] += 1


def changes(before: Iterable[T], now: Iterable[T]) -> Iterator[tuple[T | None, T | None]]:
    """What has another state than before, has come, or is no more.

    Of thousands one has changed, as a rule: what is the same before it and behind it is left out without looking at each.
    """
    old, new = tuple(before), tuple(now)
    if old == new:
        return
    begin = _alike(old, new)
    old, new = old[begin:], new[begin:]
    end = _alike(old[::-1], new[::-1])
    known, there = {one.id: one for one in old[: len(old) - end]}, {one.id: one for one in new[: len(new) - end]}
    for key, one in there.items():
        if known.get(key) != one:
            yield known.get(key), one
    for key in known.keys() - there.keys():
        yield known[key], None


def _alike(one: tuple[T, ...], other: tuple[T, ...]) -> int:
    """How many of them are the same at the beginning; tuples are compared as a whole, which is fast."""
    same, end = 0, min(len(one), len(other))
    if one[:end] == other[:end]:
        return end
    while end - same > 1:
        middle = (same + end) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            end = middle
    return same


def replica_changed(old: ReplicaState | None, new: ReplicaState | None) -> Happening | None:
    """What is worth to be told of one replica."""
    one = new or old
    assert one is not None
    if new is None:
        what, said = ("is gone" if old is not None and old.phase in ALIVE else ""), ""
    elif old is not None and old.phase is new.phase:
        return None
    elif new.phase is ReplicaPhase.FAILED:
        never = old is None or old.phase is ReplicaPhase.STARTING
        what, said = ("did not start" if never else "has ended"), new.message
    elif new.phase is ReplicaPhase.UNHEALTHY:
        what, said = "fails its health checks", new.message
    elif new.phase is ReplicaPhase.READY and old is not None and old.phase is ReplicaPhase.UNHEALTHY:
        what, said = "is well again", ""
    else:
        return None
    if not what:
        return None
    return Happening(
        kind=EventKind.HEAL,
        stack=one.stack,
        deployment=one.deployment,
        message=_sentence(f"replica {one.id} {what}", said),
        data={
            "replica": one.id,
            "node": one.node_id,
            "pid": one.pid,
            "ended": new is None or new.phase is ReplicaPhase.FAILED,
        },
        like=what,
    )


def _was_lost(old: ReplicaState | None, new: ReplicaState | None) -> bool:
    """Whether another one has to take its place."""
    if old is None or old.phase not in (ReplicaPhase.READY, ReplicaPhase.UNHEALTHY):
        return False
    if new is None or new.phase is ReplicaPhase.FAILED:
        return old.phase is ReplicaPhase.READY  # one that was unhealthy has been counted
    return old.phase is ReplicaPhase.READY and new.phase is ReplicaPhase.UNHEALTHY


def _replaced(new: ReplicaState, seconds: float) -> Happening:
    return Happening(
        kind=EventKind.REPLACE,
        stack=new.stack,
        deployment=new.deployment,
        message=f"replica {new.id} has taken the place of a lost one, ready after {seconds:.1f} s",
        data={"replica": new.id, "node": new.node_id, "pid": new.pid, "seconds": round(seconds, 3)},
        like="replaced",
    )


def proxy_changed(old: ProxyState | None, new: ProxyState | None) -> Happening | None:
    """What is worth to be told of one proxy."""
    one = new or old
    assert one is not None
    what = _what_a_proxy_does(old, new)
    if what is None:
        return None
    return Happening(
        kind=EventKind.PROXY,
        message=_sentence(f"proxy {one.id} {what}", new.message if new is not None else ""),
        data={"proxy": one.id, "node": one.node_id, "pid": one.pid, "address": one.address},
        like=f"{one.id} {what}",  # there are few, and which one it was matters
    )


def _what_a_proxy_does(old: ProxyState | None, new: ProxyState | None) -> str | None:
    if new is None:
        return "is gone" if old is not None and old.phase in SERVES else None
    served, was = old is not None and old.phase in SERVES, old.phase if old is not None else None
    if new.phase is was:
        if served and old is not None and old.stands_by and not new.stands_by:
            return "has taken the port, and serves"
        restarted = served and old is not None and old.pid and new.pid and old.pid != new.pid
        return "died and was restarted" if restarted else None
    match new.phase:
        case ProxyPhase.STARTING:
            return "died and is restarted" if served else None
        case ProxyPhase.READY:
            listens = "stands by for" if new.stands_by else "listens on"
            return "answers again" if was is ProxyPhase.UNHEALTHY else f"{listens} {new.address}"
        case ProxyPhase.UNHEALTHY:
            return "does not answer"
        case ProxyPhase.FAILED:
            return "failed"
        case ProxyPhase.DRAINING:
            return "is not needed any more and stops" if served else None


def node_changed(old: NodeState | None, new: NodeState | None) -> Happening | None:
    """A node that came or went; what is free on it changes all the time."""
    one = new or old
    assert one is not None
    if old is not None and new is not None:
        return None
    has = ", ".join(f"{name} {amount:g}" for name, amount in sorted(one.total.items()) if name in ("CPU", "GPU"))
    return Happening(
        kind=EventKind.NODE,
        message=f"node {one.id} {'has come' if new else 'is gone'}" + (f" ({has})" if has else ""),
        data={"node": one.id, "ip": one.ip},
    )


def _sentence(what: str, why: str) -> str:
    """Of a message of several lines, as a traceback is, only the first."""
    first = why.partition("\n")[0].strip()
    return f"{what}: {first}" if first else what
