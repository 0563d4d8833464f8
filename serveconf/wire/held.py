"""Which models a replica has, told to every proxy and caller that is connected to it: what changes, when it changes.

``@serve.multiplexed`` says what comes and goes, from whichever thread it runs in; nothing is asked for, and nothing is sent
for a replica that has no such models.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from serveconf.wire.frames import AnyFrame, Models

TELLS_MODELS_FROM = 4  # the version of the frames whose other end knows Models
LONGEST_ID = 256  # bytes: a model with a longer name is not told of, and found by its hash
IDS_AT_ONCE = 1000


class Told(Protocol):
    """A connection."""

    def queue(self, frame: AnyFrame) -> None:
        """Send it with what else is sent in this turn."""


class HeldModels:
    """The models of one replica, and who is told of them. A model is counted: several loaders may have one of that name."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._counts: Counter[bytes] = Counter()
        self._told: set[Told] = set()
        self._has_begun = False

    def begin(self) -> None:
        """Requests will ask for models: whoever connects looks out for it from the first one on."""
        if not self._has_begun:
            self._has_begun = True
            self._tell(Models(1, [], []))

    def came(self, model_id: str) -> None:
        """It is loaded, or about to be: who asks for it next is to come here too. From any thread."""
        self._soon(self._came, model_id)

    def went(self, model_id: str) -> None:
        """It is here no more. From any thread."""
        self._soon(self._went, model_id)

    def _soon(self, note: Callable[[str], None], model_id: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is connected any more
            self._loop.call_soon_threadsafe(note, model_id)

    def _came(self, model_id: str) -> None:
        name = told_name(model_id)
        if name:
            self._has_begun = True
            self._counts[name] += 1
            if self._counts[name] == 1:
                self._tell(Models(1, [name], []))

    def _went(self, model_id: str) -> None:
        name = told_name(model_id)
        if self._counts[name] > 1:
            self._counts[name] -= 1
        elif self._counts.pop(name, 0):
            self._tell(Models(1, [], [name]))

    def _tell(self, frame: Models) -> None:
        for connection in self._told:
            connection.queue(frame)

    # called by the connections

    def joined(self, connection: Told) -> None:
        """It is told what is here now, and from now on what changes."""
        self._told.add(connection)
        if self._has_begun:
            names = list(self._counts)
            for start in range(0, max(len(names), 1), IDS_AT_ONCE):
                connection.queue(Models(1, names[start : start + IDS_AT_ONCE], []))

    def parted(self, connection: Told) -> None:
        """It is gone."""
        self._told.discard(connection)


def told_name(model_id: str) -> bytes:
    """The id as it goes over the wire; empty for one that does not."""
    try:
        name = model_id.encode()
    except UnicodeEncodeError:
        return b""
    return name if len(name) <= LONGEST_ID else b""
