"""What all processes have counted, also those that have ended: no counter goes backwards because a proxy was replaced.

Whoever reads a process's figures tells them here; the last ones of a process that is gone are added to what others before it
have left. Stored every few seconds, for the next controller.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from serveconf.figures import (
    LONG_BOUNDS,
    ControllerFigures,
    ProcessFigures,
    ProxyFigures,
    ReplicaFigures,
    add_proxies,
    add_replicas,
    new_histogram,
    without_gauges,
    without_now,
)
from serveconf.reconcile.ports import Store

log = logging.getLogger("serveconf.figures")

KEY = "figures"
MOST_ENDED = 200  # proxies that are gone for good and keep a name; beyond that they share one
NAMELESS = "ended"


class _Replica(msgspec.Struct, kw_only=True):
    deployment: str  # stack/deployment
    figures: ReplicaFigures


class _Book(msgspec.Struct, kw_only=True):
    proxies: dict[str, ProxyFigures] = {}  # by id: the newest of the process that lives, or did when we last looked
    ended_proxies: dict[str, ProxyFigures] = {}  # by id: the sum of those before it
    replicas: dict[str, _Replica] = {}
    ended_replicas: dict[str, ReplicaFigures] = {}  # by stack/deployment
    controller: ControllerFigures = msgspec.field(default_factory=ControllerFigures)


class KeptFigures:
    """The figures of one cluster. All calls from one loop."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._book = _Book()

    async def load(self) -> None:
        """Go on from what a former controller knew. What can't be read any more is left: counting begins anew."""
        data = await self._store.get(KEY) if self._store is not None else None
        if data is not None:
            try:
                self._book = msgspec.msgpack.decode(data, type=_Book)
            except msgspec.DecodeError:
                log.warning("the figures of the former controller could not be read")

    async def flush(self) -> None:
        """Write everything to the store."""
        if self._store is not None:
            await self._store.put(KEY, msgspec.msgpack.encode(self._book))

    # what is told

    def saw_proxy(self, proxy_id: str, figures: ProxyFigures) -> None:
        """A proxy says what it has counted."""
        before = self._book.proxies.get(proxy_id)
        if before is not None and _is_older(figures.process, before.process):
            return
        if before is not None and _is_another(before.process, figures.process):
            self._end_proxy(proxy_id)
        self._book.proxies[proxy_id] = figures

    def saw_replica(self, replica_id: str, deployment: str, figures: ReplicaFigures) -> None:
        """A replica of ``stack/deployment`` says what it has counted."""
        before = self._book.replicas.get(replica_id)
        if before is not None and _is_older(figures.process, before.figures.process):
            return
        if before is not None and _is_another(before.figures.process, figures.process):
            self._end_replica(replica_id)
        elif before is not None:
            deployment = before.deployment  # renamed meanwhile: what it has counted goes on where it began
        self._book.replicas[replica_id] = _Replica(deployment=deployment, figures=figures)

    def keep_only(self, proxies: Iterable[str], replicas: Iterable[str]) -> None:
        """These are there; all others have ended."""
        for proxy_id in self._book.proxies.keys() - set(proxies):
            self._end_proxy(proxy_id)
        for replica_id in self._book.replicas.keys() - set(replicas):
            self._end_replica(replica_id)

    def applied(self, stack: str, outcome: str, seconds: float, failed_requests: int = 0) -> None:
        """An apply is over."""
        applies = self._book.controller.applies.setdefault(stack, {})
        applies.setdefault(outcome, new_histogram(LONG_BOUNDS)).observe(seconds, LONG_BOUNDS)
        failed = self._book.controller.failed_requests.setdefault(stack, {})
        failed[outcome] = failed.get(outcome, 0) + failed_requests

    def started(self, deployment: str, seconds: float, *, standby: bool = False) -> None:
        """A replica of ``stack/deployment`` got ready."""
        starts = self._book.controller.starts.setdefault(deployment, {})
        key = "true" if standby else "false"
        starts.setdefault(key, new_histogram(LONG_BOUNDS)).observe(seconds, LONG_BOUNDS)

    # what is known

    @property
    def controller(self) -> ControllerFigures:
        """What controllers have counted."""
        return self._book.controller

    def proxies(self) -> dict[str, ProxyFigures]:
        """Each proxy's figures, those of the processes before it included."""
        ids = self._book.proxies.keys() | self._book.ended_proxies.keys()
        return {
            proxy_id: add_proxies(
                book[proxy_id] for book in (self._book.ended_proxies, self._book.proxies) if proxy_id in book
            )
            for proxy_id in sorted(ids)
        }

    def live_proxies(self) -> dict[str, ProxyFigures]:
        """What each proxy process that lives has counted itself."""
        return self._book.proxies

    def replicas(self) -> dict[str, ReplicaFigures]:
        """The figures of each deployment's replicas, as ``stack/deployment``, the ended ones included."""
        parts: dict[str, list[ReplicaFigures]] = {key: [one] for key, one in self._book.ended_replicas.items()}
        for replica in self._book.replicas.values():
            parts.setdefault(replica.deployment, []).append(replica.figures)
        return {key: add_replicas(found) for key, found in sorted(parts.items())}

    def processes(self) -> dict[tuple[str, str], ProcessFigures]:
        """What the processes that live use, by role and id."""
        return {("proxy", key): one.process for key, one in self._book.proxies.items()} | {
            ("replica", key): one.figures.process for key, one in self._book.replicas.items()
        }

    def _end_proxy(self, proxy_id: str) -> None:
        ended, past = without_now(self._book.proxies.pop(proxy_id)), self._book.ended_proxies
        name = proxy_id if proxy_id in past or len(past) < MOST_ENDED else NAMELESS
        past[name] = add_proxies([past[name], ended]) if name in past else ended

    def _end_replica(self, replica_id: str) -> None:
        replica, past = self._book.replicas.pop(replica_id), self._book.ended_replicas
        ended = without_gauges(replica.figures)
        before = [past[replica.deployment]] if replica.deployment in past else []
        past[replica.deployment] = add_replicas([*before, ended])


def _is_another(one: ProcessFigures, other: ProcessFigures) -> bool:
    return one.began != other.began


def _is_older(one: ProcessFigures, other: ProcessFigures) -> bool:
    """An answer that was on its way for longer than a later one, such as the last; a process's CPU time only grows."""
    return one.began == other.began and one.cpu_s < other.cpu_s
