"""Fields of the spec whose behaviour is not built yet: anything but their default is refused, never ignored."""

from __future__ import annotations

UNSUPPORTED: frozenset[str] = frozenset()
