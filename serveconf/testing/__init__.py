"""In-memory twins of the ports, for tests of what is built on them, ours and anyone's.

``FakeCluster`` stands for a cluster, ``FakeEngine`` for Ray below a real ``ActorCluster``; ``tests/contract`` holds both
to what the real ones do. No process is started, time moves when it is told to. ``serve_spec`` serves a spec in the test's
own process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serveconf.testing.cluster import FakeCluster
from serveconf.testing.engine import FakeEngine
from serveconf.testing.memory import FakePreflight, ManualClock, MemoryStore

if TYPE_CHECKING:
    from serveconf.spec_client import serve_spec

__all__ = ["FakeCluster", "FakeEngine", "FakePreflight", "ManualClock", "MemoryStore", "serve_spec"]


def __getattr__(name: str) -> Any:
    """What it imports is needed by those alone who call it."""
    if name == "serve_spec":
        from serveconf.spec_client import serve_spec

        return serve_spec
    raise AttributeError(name)
