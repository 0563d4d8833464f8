"""Stacks are brought about through the control API: the ``Serving`` that ``run``, ``watch`` and ``sync`` work with."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from serveconf.client import Client, author
from serveconf.errors import OperatorError, ServeconfError, Unauthorized, Unreachable
from serveconf.submit import follow, submit
from serveconf.watch import quarantine
from serveconf.watch.look import Look
from serveconf.watch.memory import Fate, Outcome, outcome_of
from serveconf.watch.ports import Drift, Said

GIVEN_UP = "there is no stack"
MESSAGE = 2_000  # as long as one in the log of events may be


class ControlApi:
    """Brings stacks about through one control API, which may go away and come back as another process."""

    def __init__(
        self,
        connect: Callable[[], Client],
        tell: Callable[[Said], None],
        *,
        by_hand: bool = False,
        retry: bool = False,
        sources: Iterable[Path] = (),
        more: Callable[[Look], Mapping[str, Any]] = lambda look: {},
    ) -> None:
        """``connect`` finds it anew. ``by_hand``: the first apply is asked for by someone who sees what it does, so it ends
        a pin and takes what is in quarantine; ``retry``: so does that of each stack, but for pins. ``more``: what goes
        with each apply, such as the commit.
        """
        self._connect = connect
        self._tell = tell
        self._by_hand = by_hand
        self._retry = retry
        self._sources = [Path(os.path.abspath(source)) for source in sources]
        self._more = more
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._running: dict[Path, tuple[Client, str]] = {}
        self._interrupted: dict[Path, Look] = {}  # what is not to be begun any more, or was just begun
        self._revisions: dict[str, int | None] = {}  # stack -> the revision that our last apply came to
        self._tried: set[str] = set()

    def apply(self, look: Look, *, first: bool, live: Callable[[], None]) -> Outcome:
        """Send it and follow it to its end. Raises ServeconfError where it can't even be sent."""
        assert look.loaded is not None
        with self._reached() as client:
            by_hand = first and self._by_hand
            stack = look.loaded.spec.name
            self._tried.add(stack)
            if not by_hand and (pinned := _pinned(client, stack)):
                return Outcome(fate=Fate.PINNED, message=pinned)
            submission = submit(
                look.loaded, client, automatic=not by_hand, snapshot=look.snapshot, more=dict(self._more(look))
            )
            for note in submission.notes:
                self._tell(Said(kind="restless", message=note, file=look.file, stack=stack))
            if self._interrupted.get(look.file) is look:
                raise OperatorError("interrupted: nothing had been sent", code="cancelled")
            operation = client.begin(stack, "apply", submission.body)
            self._running[look.file] = (client, operation)
            try:
                if self._interrupted.get(look.file) is look:  # while the request was on its way
                    self._stop(look, client, operation)
                result = follow(client, operation, lambda event: self._event(look, event, live), look.loaded)
            finally:
                self._running.pop(look.file, None)
        return self._noted(look, stack, result)

    def cancel(self, look: Look) -> None:
        """Undo the apply of that file, if it has not switched yet; also one that is just being sent."""
        self._interrupted[look.file] = look
        if (running := self._running.get(look.file)) is not None:
            self._stop(look, *running)

    def complete(self, look: Look) -> None:
        """End the apply of that file, which is live, without waiting for what it has replaced."""
        running = self._running.get(look.file)
        if running is not None:
            client, operation = running
            with suppress(ServeconfError):  # it ends by itself, then
                client.cancel(operation)

    @property
    def tried(self) -> frozenset[str]:
        """The stacks that it has applied, or tried to."""
        return frozenset(self._tried)

    def drift(self, look: Look) -> Drift | None:
        """What somebody else has done to the stack since our last apply, if it serves something else now."""
        assert look.loaded is not None
        stack = look.loaded.spec.name
        with self._reached() as client:
            found = _stack(client, stack)
            if found is None:
                return Drift(message=f"{GIVEN_UP} '{stack}' any more")
            if found["revision"] == self._revisions.get(stack) or found["state"] in ("Progressing", "Deleting"):
                return None
            if found["state"] == "Pinned":
                return Drift(message=_pin(found), pinned=True)
            submission = submit(look.loaded, client, automatic=True, snapshot=look.snapshot)
            if not client.plan(stack, submission.body)["changed"]:
                self._revisions[stack] = found["revision"]
                return None
            return Drift(message=_who(client, stack, found["revision"]))

    def data(self, look: Look) -> frozenset[str]:
        """What its replicas were seen to write."""
        assert look.loaded is not None
        with self._reached() as client:
            return client.data(look.loaded.spec.name)

    def prune(self, present: Iterable[Path], claimed: frozenset[str]) -> list[str]:
        """Take away the stacks whose last revision came from one of the sources, and that no file claims."""
        gone: list[str] = []
        with self._reached() as client:
            for found in client.status(load=False)["stacks"]:
                name = found["name"]
                if name in claimed or found["state"] == "Deleting" or not self._is_ours(client, name):
                    continue
                operation = client.begin(name, "delete", {"author": author()})
                result = follow(client, operation, lambda event: None)
                if result["outcome"] != "applied":
                    why = "; ".join(problem["message"] for problem in result["problems"])
                    raise OperatorError(f"stack '{name}' could not be taken away: {why or result['outcome']}")
                gone.append(name)
        return gone

    def quarantined(self, look: Look) -> str:
        """Why this very content was refused before, by this or an earlier watcher."""
        assert look.loaded is not None
        stack = look.loaded.spec.name
        first = stack not in self._tried
        if first and (self._by_hand or self._retry):
            return ""
        known = quarantine.refused(self.client().address, stack)
        return known.why if known is not None and known.key == look.key else ""

    def record(self, look: Look, kind: str, message: str) -> None:
        """Put it into the cluster's log of events; where nobody answers it stands in the watcher's own alone."""
        stack = look.stack
        if stack is None:
            return
        with suppress(ServeconfError):
            self.current().tell(stack, kind, message[:MESSAGE], {"author": author(), "file": str(look.file)})

    def client(self) -> Client:
        """The control API. Raises Unreachable or Unauthorized."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def current(self) -> Client:
        """The control API that answered last. Raises Unreachable where there is none; looks for none."""
        client = self._client
        if client is None:
            raise Unreachable("no control API answers just now")
        return client

    def _stop(self, look: Look, client: Client, operation: str) -> None:
        try:
            message = client.cancel(operation)["message"]
        except ServeconfError as error:
            message = error.message
        self._tell(Said(kind="cancelled", message=f"interrupted: {message}", file=look.file, stack=look.stack))

    def _reached(self) -> _Reached:
        return _Reached(self)

    def forget(self) -> None:
        """It does not answer: look for it anew the next time."""
        with self._lock:
            self._client = None

    def _event(self, look: Look, event: dict[str, Any], live: Callable[[], None]) -> None:
        self._tell(Said(kind="event", message=event["event"], file=look.file, stack=look.stack, data=event))
        if event["event"] == "phase" and event["phase"] == "draining":
            live()

    def _noted(self, look: Look, stack: str, result: dict[str, Any]) -> Outcome:
        outcome = outcome_of(result)
        address = self.client().address
        match outcome.fate:
            case Fate.SERVED:
                self._revisions[stack] = result["revision"]
                quarantine.release(address, stack)
            case Fate.REFUSED:
                quarantine.refuse(address, stack, look.key, outcome.message)
            case Fate.STUCK | Fate.PINNED:
                pass
        return outcome

    def _is_ours(self, client: Client, stack: str) -> bool:
        """Whether its newest revision came from a file of the sources."""
        history = client.history(stack)
        return bool(history and history[0]["source"]) and self.is_own_source(history[0]["source"])

    def is_own_source(self, source: str) -> bool:
        """Whether it names a file of the sources."""
        path = Path(source)
        return any(path == own or path.parent == own for own in self._sources)


class _Reached:
    """The control API for a while; where it turns out not to answer it is looked for anew the next time."""

    def __init__(self, api: ControlApi) -> None:
        self._api = api

    def __enter__(self) -> Client:
        return self._api.client()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and issubclass(kind, Unreachable | Unauthorized):
            self._api.forget()


def _stack(client: Client, name: str) -> dict[str, Any] | None:
    return next((stack for stack in client.status(load=False)["stacks"] if stack["name"] == name), None)


def _pinned(client: Client, name: str) -> str:
    """That the stack is pinned; empty where it is not."""
    found = _stack(client, name)
    pinned = found is not None and found["state"] == "Pinned"
    return _pin(found) if found and pinned else ""


def _pin(found: dict[str, Any]) -> str:
    return f"stack '{found['name']}' is pinned to revision {found['revision']} by a rollback"


def _who(client: Client, stack: str, revision: int | None) -> str:
    """Which revision serves instead of ours, and who has made it."""
    newest = next((r for r in client.history(stack) if r["revision"] == revision), None)
    if newest is None:
        return f"stack '{stack}' is at revision {revision}, which nobody here has made"
    source = f" of {newest['source']}" if newest["source"] else ""
    return f"revision {revision} by {newest['author'] or 'somebody'}{source} serves instead ({newest['summary']})"
