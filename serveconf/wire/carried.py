"""What middlewares in the proxy leave in the scope for the application, on its way over the wire and back.

ASGI's own keys are fields of ``Open``. Beyond them two go to the replica, and no other, so that it can be said what an
application sees: ``session`` whole (and back with the head of the answer), and of ``state`` what JSON can carry.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from serveconf.wire.frames import ProtocolError

log = logging.getLogger("serveconf.wire")

MAX_CARRIED_BYTES = 64 << 10
_left_out: set[str] = set()  # keys of ``state`` that were warned of


class CarriedSession(dict[str, Any]):
    """``request.session`` in the replica: a dict that notes whether it was looked at and changed, as Starlette's does."""

    accessed = False
    modified = False

    def mark_accessed(self) -> None:
        """Someone looked at it."""
        self.accessed = True

    def mark_modified(self) -> None:
        """Someone changed it."""
        self.accessed = self.modified = True

    def __setitem__(self, key: str, value: Any) -> None:
        self.mark_modified()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.mark_modified()
        super().__delitem__(key)

    def __ior__(self, other: Any, /) -> CarriedSession:  # type: ignore[override,misc]
        self.mark_modified()
        return super().__ior__(other)

    def clear(self) -> None:
        self.mark_modified()
        super().clear()

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            self.mark_modified()
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        item = super().popitem()
        self.mark_modified()
        return item

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self.mark_modified()
        return super().setdefault(key, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.mark_modified()
        super().update(*args, **kwargs)

    def __init__(self, came: dict[str, Any]) -> None:
        super().__init__(came)
        self._came = _as_json(came)

    def news(self) -> bytes:
        """What the proxy is told of it with the head of the answer; nothing where nobody touched it.

        TypeError for a value that JSON cannot carry, where Starlette's own middleware raises it too.
        """
        text = _as_json(self)
        changed = text != self._came
        if not (self.accessed or changed):
            return b""
        return _as_json([self.accessed, self.modified, self if changed else None]).encode()


def pack_extras(scope: dict[str, Any]) -> bytes:
    """``session`` and ``state`` of a scope, for ``Open``. TypeError or ValueError when the session cannot be carried."""
    session, state = scope.get("session"), scope.get("state")
    state = _pack_state(state) if state else {}
    if session is None and not state:
        return b""
    packed = _as_json([session, state]).encode()
    if len(packed) > MAX_CARRIED_BYTES:
        raise ValueError(f"session and state are {len(packed)} bytes, {MAX_CARRIED_BYTES} can be carried")
    return packed


def _pack_state(state: dict[str, Any]) -> dict[str, Any]:
    carried = {}
    for key, value in state.items():
        try:
            _as_json(value)
        except (TypeError, ValueError, RecursionError):
            if key not in _left_out and len(_left_out) < 100:
                _left_out.add(key)
                log.warning("request.state.%s stays in the proxy: JSON cannot carry a %s", key, type(value).__name__)
        else:
            carried[key] = value
    return carried


def unpack_extras(packed: bytes, scope: dict[str, Any]) -> CarriedSession | None:
    """Put what was packed into the replica's scope; the session, if there is one. ProtocolError for what was never packed."""
    try:
        content, state = json.loads(packed)
        scope["state"].update(state)
        if content is None:
            return None
        session = scope["session"] = CarriedSession(content)
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not what a scope carries: {error}") from error
    return session


def give_back(news: bytes, scope: dict[str, Any]) -> None:
    """Do to the proxy's session what the application did to its own, before its middleware sees the answer begin."""
    session = scope.get("session")
    if session is None:
        return
    accessed, modified, content = json.loads(news)
    tracked = hasattr(session, "mark_modified")
    if content is not None:
        change = dict if tracked else type(session)  # a change deep inside is not noted by Starlette's, and so not here
        change.clear(session)
        change.update(session, content)
    if modified and tracked:
        session.mark_modified()
    elif accessed and hasattr(session, "mark_accessed"):
        session.mark_accessed()


def _as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
