"""What was done, and what the system did by itself, with why: one bounded, folded log that outlives the controller.

Whoever does something ``note``s it; the control API and the dashboard read it back and follow it. Repeats of one event
are one entry with a count, so that a replica which crashes all night does not push everything else out.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf.reconcile.journal import EventKind
from serveconf.reconcile.ports import Clock, Store

log = logging.getLogger("serveconf.events")

KEPT = 2_000  # entries; the contract promises 1,000
FOLD_S = 600.0  # an event that comes again within this time is counted, not written anew
LONGEST_MESSAGE = 2_000
LARGEST_DATA = 8_000  # bytes of JSON
WRITE_EVERY_S = 0.5
SEGMENT = 64  # entries in one value of the store: a change rewrites so many, not all of them
PREFIX = "events/"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. ``place`` grows with every note, also when an entry is counted up: who has seen 7 asks for what is past 7."""

    place: int
    time: float  # of the last time, in seconds since the epoch
    first: float  # of the first
    kind: EventKind
    message: str
    stack: str | None = None
    deployment: str | None = None
    data: dict[str, Any] = {}
    count: int = 1
    like: str = ""  # what is folded with it

    def as_json(self) -> dict[str, Any]:
        """The contract's event. Where it stands for several, ``data.first`` says when that began."""
        data = self.data if self.count == 1 else {**self.data, "first": _iso(self.first)}
        return {
            "time": _iso(self.time),
            "kind": self.kind.value,
            "stack": self.stack,
            "deployment": self.deployment,
            "message": self.message,
            "data": data,
            "count": self.count,
        }


class EventLog:
    """The events of one cluster. All calls from one loop; ``keep`` has to run for them to be stored."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._entries: OrderedDict[int, Event] = OrderedDict()  # by place, the oldest first
        self._foldable: dict[tuple[Any, ...], int] = {}  # what would be folded → the place of its entry
        self._last = 0
        self._unwritten: set[int] = set()  # segments
        self._news = asyncio.Event()
        self._to_write = asyncio.Event()

    async def load(self) -> None:
        """Read what a former controller has noted. A value that can't be read is left out: it is only the past."""
        found: list[Event] = []
        for key in await self._store.keys(PREFIX):
            data = await self._store.get(key)
            try:
                found += msgspec.json.decode(data or b"[]", type=list[Event])
            except msgspec.DecodeError:
                log.warning("events could not be read", extra={"key": key})
        for entry in sorted(found, key=lambda entry: entry.place):
            before = self._entries.get(self._foldable.get(_fold_key(entry), 0))
            if before is not None and before.first == entry.first:  # it died between two writes: the newer one counts
                self._drop(before.place)
            self._put(entry)
        alive = {place // SEGMENT for place in self._entries}
        self._unwritten = {entry.place // SEGMENT for entry in found} - alive  # nothing but what has to be deleted

    def note(
        self,
        *,
        kind: EventKind | str,
        message: str,
        stack: str | None = None,
        deployment: str | None = None,
        data: Mapping[str, Any] | None = None,
        like: str = "",
    ) -> None:
        """Something happened. It is folded with the last one of the same kind, stack, deployment and message, or, where
        the message differs from time to time (an id, a duration), of the same ``like``; the newest message is shown."""
        now = self._clock.wall()
        event = Event(
            place=self._last + 1,
            time=now,
            first=now,
            kind=EventKind(kind),
            message=message[:LONGEST_MESSAGE],
            stack=stack,
            deployment=deployment,
            data=_bounded(data or {}),
            like=like,
        )
        before = self._entries.get(self._foldable.get(_fold_key(event), 0))
        if before is not None and 0 <= now - before.time <= FOLD_S:  # the clock may have been put back
            self._drop(before.place)
            event = replace(event, first=before.first, count=before.count + 1)
        self._put(event)
        self._to_write.set()
        news, self._news = self._news, asyncio.Event()
        news.set()

    def recent(self, *, stack: str | None = None, since: float = 0.0, after: int = 0) -> list[Event]:
        """The events of a stack, or of everything, from ``since`` (seconds since the epoch) on, the oldest first."""
        return [e for e in self._behind(after) if e.time >= since and stack in (None, e.stack)]

    async def follow(self, *, stack: str | None = None, since: float = 0.0, after: int = 0) -> AsyncIterator[Event]:
        """Those of ``recent``, then each as it comes; one that is counted up comes again. A slow reader sees later counts."""
        while True:
            news, last = self._news, self._last
            for event in self.recent(stack=stack, since=since, after=after):
                yield event
            after = max(after, last)
            await news.wait()

    @property
    def last(self) -> int:
        """The place of the newest event."""
        return self._last

    async def keep(self) -> None:
        """Write what is noted to the store, soon but not each by itself. Runs until it is cancelled."""
        while True:
            await self._to_write.wait()
            await self._clock.sleep(WRITE_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is not written yet. What the store does not take is tried again with the next."""
        self._to_write.clear()
        for number in sorted(self._unwritten):
            entries = [e for e in self._entries.values() if e.place // SEGMENT == number]
            self._unwritten.discard(number)
            try:
                if entries:
                    await self._store.put(_key(number), msgspec.json.encode(entries))
                else:
                    await self._store.delete(_key(number))
            except Exception:  # the log of events must not end with one failed write
                self._unwritten.add(number)
                log.exception("events could not be written")

    def _behind(self, place: int) -> Iterator[Event]:
        """The entries past a place, the oldest first; cheap for who follows closely."""
        newest: list[Event] = []
        for event in reversed(self._entries.values()):
            if event.place <= place:
                break
            newest.append(event)
        return reversed(newest)

    def _put(self, event: Event) -> None:
        self._entries[event.place] = event
        self._foldable[_fold_key(event)] = event.place
        self._last = max(self._last, event.place)
        self._unwritten.add(event.place // SEGMENT)
        while len(self._entries) > KEPT:
            self._drop(next(iter(self._entries)))

    def _drop(self, place: int) -> None:
        event = self._entries.pop(place)
        self._unwritten.add(place // SEGMENT)
        if self._foldable.get(_fold_key(event)) == place:
            del self._foldable[_fold_key(event)]


def _fold_key(event: Event) -> tuple[Any, ...]:
    return event.kind, event.stack, event.deployment, event.like or event.message


def _bounded(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data as JSON will give it back; what is no JSON, or too much of it, is said to be left out."""
    try:
        encoded = msgspec.json.encode(dict(data))
    except (TypeError, ValueError) as error:
        return {"left_out": str(error)}
    if len(encoded) > LARGEST_DATA:
        return {"left_out": f"{len(encoded)} bytes"}
    decoded: dict[str, Any] = msgspec.json.decode(encoded)
    return decoded


def _iso(time: float) -> str:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).isoformat(timespec="milliseconds")


def _key(segment: int) -> str:
    return f"{PREFIX}{segment:012d}"
