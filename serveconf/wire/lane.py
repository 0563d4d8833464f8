"""How the data of large bodies gets to the other end: through the socket behind its frame, or through shared memory.

A ``Connection`` has one ``Lane`` and asks nothing else about the way. ``Lane`` itself is the way through the socket, which
always works; ``shared.py`` has both ends of the other one, and falls back to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from serveconf.wire.frames import AnyFrame, Body, Free, Memory, ProtocolError

Parts: TypeAlias = Sequence[bytes | memoryview]


class Lane:
    """Data goes through the socket."""

    news: Sequence[Any] = ()  # not empty while ``tell`` has something
    is_understood = True  # whether the other end knows of lanes in this direction

    def load(self, frame: Body, parts: Parts) -> Parts:
        """Data of ``frame.raw`` bytes leaves now; those parts of it that are to be written behind the frame's batch."""
        return parts

    def unload(self, frame: Body) -> memoryview | None:
        """The data that ``frame`` announces; None if it comes behind the batch. ProtocolError if it can't be there."""
        if frame.slot:
            raise ProtocolError("there is no memory here")
        return None

    def hear(self, frame: Memory | Free) -> None:
        """What the other end says of its lane. ProtocolError if it can't be."""
        raise ProtocolError("there is no memory here")

    def tell(self) -> AnyFrame:
        """What the other end has to hear, with the next batch."""
        raise NotImplementedError

    def close(self) -> None:
        """The connection is gone."""
