"""One file's task: look once it has settled, decide, apply, wait. What it remembers, and decides by, is in ``memory``."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from serveconf.code.hashes import Hashes
from serveconf.errors import AuthorError, ServeconfError, Unreachable
from serveconf.watch.following import Following
from serveconf.watch.look import Look, changed_files, look_at
from serveconf.watch.memory import AWAY_S, LONGEST_S, Fate, Memory, Outcome
from serveconf.watch.ports import FirstFailure, Said
from serveconf.watch.settle import Restless, settled

ASK_AGAIN_S = 0.5  # between two questions what the app writes


async def follow_one(file: Path, shared: Following) -> None:
    """One file, for as long as it is there."""
    await _Follower(file, shared).run()


class FirstFailed(Exception):
    """The first apply of the only file came to nothing."""

    def __init__(self, outcome: Outcome | None, error: ServeconfError | None) -> None:
        super().__init__(outcome.message if outcome else str(error))
        self.outcome = outcome
        self.error = error


class _Follower:
    """One file's task: look, decide, apply, wait."""

    def __init__(self, file: Path, shared: Following) -> None:
        self.file = file
        self.shared = shared
        self.memory = Memory()
        self.hashes = Hashes()
        self.restless = Restless()
        self.data: frozenset[str] = frozenset()
        self.unwatched: frozenset[str] = frozenset()  # of it, what does not count
        self.asked = 0.0
        self.asked_about = ""
        self.shown = ""  # the key that was last spoken of
        self.said: set[str] = set()  # what is said once for a content
        self.said_of_stack: set[str] = set()  # ... and of what serves, until it is found as the file says
        self.against = ""  # what stands against it although nothing is wrong with it
        self.first = True
        self.drifted = ""  # what was found of the stack and is being undone
        self.trying: asyncio.Task[None] | None = None  # the last apply
        self.ends_behind = (
            False  # it is live already, and what is saved meanwhile does not wait for what it has replaced
        )

    async def run(self) -> None:
        """Until the file is gone, or it was to be served once."""
        try:
            await self._follow()
        finally:
            if self.trying is not None:
                self.trying.cancel()
                await asyncio.gather(self.trying, return_exceptions=True)

    async def _follow(self) -> None:
        next_drift = 0.0
        told = self.shared.told
        while True:
            before = self.shared.looks.get(self.file)
            async with self.shared.gate.reading():
                known = before.key if before is not None else ""
                look, heard, busy = await settled(self._look, self.shared.news, self.restless, known)
                if await self._knows_more_data(look):
                    continue
                if busy:
                    message = f"{', '.join(sorted(busy))} keeps changing: it counts again once it rests"
                    self._say("restless", message, look)
                if before is not None and self.memory.served == before.key and self._only_data(before, look):
                    self.memory = replace(self.memory, served=look.key)
                    self.shown = look.key
                if before is not None and look.key != before.key:
                    self.shared.note_change(told=self.shared.told > told)
                told = self.shared.told
                self._watch_what_counts(look)
                self.shared.seen(look)
                if before is None:
                    await self.shared.all_seen()
                pause = await self._act(look, before)
                if not self.shared.options.watching and self.memory.served == look.key:
                    return await self._tried()
                if self.trying is None and self._now() >= next_drift and self.memory.served == look.key:
                    await self._check_drift(look)
                    next_drift = self._now() + self.shared.options.drift_s
            waits = [self.shared.poll_s, *([pause] if pause else [])]
            await self.shared.news.wait(heard, max(0.05, min(waits)))

    async def _look(self, restless: frozenset[str]) -> Look:
        """What the files say; before a change is believed, whether it is not the app itself that has written."""
        look = await self._read(restless)
        if self._now() - self.asked > ASK_AGAIN_S and await self._knows_more_data(look):
            look = await self._read(restless)
        return look

    async def _knows_more_data(self, look: Look) -> bool:
        """Ask what the app was seen to write, where these contents may be of that; True where that is news."""
        if look.snapshot is None or look.key in (self.memory.served, self.asked_about):
            return False
        self.asked, self.asked_about = self._now(), look.key
        try:
            data = await asyncio.to_thread(self.shared.serving.data, look)
        except ServeconfError:
            return False
        if data == self.data:
            return False
        self.data = self.unwatched = data
        self.shared.watch_without(look, data)
        return True

    def _watch_what_counts(self, look: Look) -> None:
        """What the app writes is no news, but for what .serveconfignore calls code after all."""
        if look.snapshot is not None and (data := self.data - look.snapshot.files.keys()) != self.unwatched:
            self.unwatched = data
            self.shared.watch_without(look, data)

    def _only_data(self, before: Look, after: Look) -> bool:
        """Whether all that differs is what the app itself has written, as is known by now."""
        one, other = before.loaded, after.loaded
        if one is None or other is None or before.snapshot is None or after.snapshot is None or not self.data:
            return False
        said = (one.spec, one.app_dir, one.masks) == (other.spec, other.app_dir, other.masks)
        files, now = before.snapshot.files, after.snapshot.files
        names = files.keys() | now.keys()
        left_out = self.data - now.keys()  # what .serveconfignore calls code after all is none
        return said and all(files.get(name) == now.get(name) for name in names - left_out)

    async def _read(self, restless: frozenset[str]) -> Look:
        options = self.shared.options
        return await asyncio.to_thread(
            look_at,
            self.file,
            env_files=options.env_files,
            variables=options.variables,
            hashes=self.hashes,
            data=self.data,
            restless=restless,
        )

    async def _act(self, look: Look, before: Look | None) -> float | None:
        """Do what is due; the seconds after which something may be due without news."""
        await self._end_last(look)
        if look.key != self.shown:
            if self.shown and look.key != self.memory.served:
                files = changed_files(before, look)
                named = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
                self._say("changed", f"changed: {named or 'what it says'}", look, files=files[:50])
            self.shown = look.key
            self.said.clear()
            self.said_of_stack.clear()
        if look.error is not None:
            self._refuse(look, look.error)
            return None
        against = self.shared.contradiction(self.file)
        if against is not None:
            self.against = look.key
            self._refuse(look, against)
            return None
        if self.against:
            if self.against == look.key == self.memory.served:
                self._say("agreed", "no other file contradicts it any more: it serves as it says", look)
            self.said.clear()
            self.against = ""
        due = self.memory.due_in(look.key, self._now())
        if due is None or due > 0:
            return due
        if look.loaded is not None and look.loaded.warnings and self._once("warnings"):
            self._say("warned", "the spec has warnings", look, warnings=look.loaded.warnings)
        await self._apply(look)
        return self.memory.due_in(look.key, self._now())

    def _refuse(self, look: Look, error: ServeconfError) -> None:
        """Say what is wrong, once."""
        if self._once(error.message):
            self._say("invalid", "nothing is changed", look, error=error)
        self._first_is_over(None, error)

    async def _apply(self, look: Look) -> None:
        try:
            refused = await asyncio.to_thread(self.shared.serving.quarantined, look)
        except ServeconfError:  # nobody answers: the apply finds that, too, and is tried again
            refused = ""
        if refused:
            self.memory = replace(self.memory, refused=look.key)
            self._say("quarantine", f"it has failed before and is not tried again: {refused}", look)
            self._first_is_over(Outcome(fate=Fate.REFUSED, message=refused), None)
            return
        live = asyncio.Event()
        self.ends_behind = False
        self.trying = asyncio.create_task(self._try(look, live))
        is_live = asyncio.create_task(live.wait())
        try:
            await asyncio.wait([self.trying, is_live], return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_live.cancel()
        if self.trying.done():
            await self._tried()
        else:
            self.ends_behind = True
            self.memory = self.memory.after(look.key, Fate.SERVED, self._now())

    async def _end_last(self, look: Look) -> None:
        """Whatever follows comes after the end of the last apply, which is live."""
        if self.trying is None:
            return
        if not self.trying.done() and look.key != self.memory.served:
            await asyncio.to_thread(self.shared.serving.complete, look)
            await self._tried()
        elif self.trying.done():
            await self._tried()

    async def _tried(self) -> None:
        """Return when the last apply has ended and its end is told. Raises what went wrong here with that."""
        trying, self.trying = self.trying, None
        if trying is not None:
            await trying

    async def _try(self, look: Look, live: asyncio.Event) -> None:
        """One apply, from its beginning to what is told of its end; ``live`` is set as soon as it serves."""
        loop, serving = asyncio.get_running_loop(), self.shared.serving

        def set_live() -> None:
            loop.call_soon_threadsafe(live.set)

        trying = asyncio.create_task(asyncio.to_thread(serving.apply, look, first=self.first, live=set_live))
        try:
            outcome = await asyncio.shield(trying)
        except asyncio.CancelledError:
            await asyncio.to_thread(serving.cancel, look)
            await asyncio.gather(trying, return_exceptions=True)
            raise
        except ServeconfError as error:
            outcome = outcome_of_error(error)
            if self._once_of_stack(error.message):
                self._say("error", "what is served is unchanged", look, error=error)
        if not self.ends_behind or outcome.fate is not Fate.SERVED:
            spread = random.uniform(0.8, 1.2)
            self.memory = self.memory.after(
                look.key, outcome.fate, self._now(), spread=spread, longest_s=outcome.longest_s
            )
        await self._tell_fate(look, outcome)

    async def _tell_fate(self, look: Look, outcome: Outcome) -> None:
        match outcome.fate:
            case Fate.SERVED:
                if self.drifted:
                    await self._record("heal", f"brought back to what {self.file.name} says: {self.drifted}", look)
                    self.drifted = ""
                self.shared.lost.discard(self.file)
                self.shared.live[self.file] = look.stack or ""
                self._say("served", "as the file says", look, result=outcome.result, addresses=look.addresses)
            case Fate.REFUSED:
                self._say("quarantine", "not tried again until a byte of it changes", look)
                why = outcome.message.partition("\n")[0]
                await self._record("quarantine", f"not tried again until a byte of it changes: {why}", look)
            case Fate.STUCK:
                pause = self.memory.not_before - self._now()
                self._say("waiting", f"{outcome.message}; next try in {pause:.0f} s", look, seconds=round(pause, 1))
            case Fate.PINNED if self._once_of_stack("pinned"):
                self._say("pinned", f"{outcome.message}: waiting for 'serveconf resume'", look)
            case Fate.PINNED:
                return
        self._first_is_over(outcome, None)

    def _first_is_over(self, outcome: Outcome | None, error: ServeconfError | None) -> None:
        """The first try has ended; where it came to nothing, and that is to end the watcher, so it does."""
        served = outcome is not None and outcome.fate is Fate.SERVED
        wrong = outcome is None or outcome.fate is Fate.REFUSED
        match self.shared.options.first_failure:
            case FirstFailure.ENDS if self.first and not served:
                self.shared.fail_first(FirstFailed(outcome, error))
            case FirstFailure.ENDS_WHERE_WRONG if self.first and wrong:
                self.shared.fail_first(FirstFailed(outcome, error))
        if self.first:
            self.shared.firsts[self.file] = (outcome, error)
        self.first = False
        self.shared.settled.add(self.file)

    async def _check_drift(self, look: Look) -> None:
        """Whether somebody has changed the stack behind the file's back."""
        try:
            drift = await asyncio.to_thread(self.shared.serving.drift, look)
        except Unreachable as error:
            self.shared.lost.add(self.file)
            if self._once_of_stack(error.message):
                self._say("waiting", f"{error.message}; looking again", look)
            return
        except ServeconfError as error:
            if self._once_of_stack(error.message):
                self._say("error", "whether it is still as it was applied can't be told", look, error=error)
            return
        self.shared.lost.discard(self.file)
        if drift is None:
            self.said_of_stack.clear()
        elif drift.pinned:
            self.memory = replace(self.memory, served="").after(look.key, Fate.PINNED, self._now())
            await self._tell_fate(look, Outcome(fate=Fate.PINNED, message=drift.message))
        elif not self.shared.options.self_heal:
            if self._once_of_stack(drift.message):
                self._say("drift", f"{drift.message}; left as it is (--no-self-heal)", look)
                await self._record("drift", f"{drift.message}; left as it is", look)
        else:
            self._say("drift", f"{drift.message}; bringing it back", look)
            await self._record("drift", f"{drift.message}; it is brought back", look)
            self.drifted = drift.message
            self.memory = replace(self.memory, served="", stuck="")
            self.shared.news.ring()

    async def _record(self, kind: str, message: str, look: Look) -> None:
        await asyncio.to_thread(self.shared.serving.record, look, kind, message)

    def _once(self, what: str) -> bool:
        """Whether it is said for the first time of this content."""
        return _adds(self.said, what)

    def _once_of_stack(self, what: str) -> bool:
        """Whether it is said for the first time since the stack was found as the file says."""
        return _adds(self.said_of_stack, what)

    def _say(self, kind: str, message: str, look: Look, error: ServeconfError | None = None, **data: Any) -> None:
        stack = look.stack or self.shared.live.get(self.file)
        self.shared.tell(Said(kind=kind, message=message, file=self.file, stack=stack, data=data, error=error))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _adds(said: set[str], what: str) -> bool:
    known = what in said
    said.add(what)
    return not known


def outcome_of_error(error: ServeconfError) -> Outcome:
    """An apply that did not even begin: its author's fault, or the cluster's."""
    fate = Fate.REFUSED if isinstance(error, AuthorError) else Fate.STUCK
    longest_s = AWAY_S if isinstance(error, Unreachable) else LONGEST_S
    return Outcome(fate=fate, message=error.message, longest_s=longest_s)
