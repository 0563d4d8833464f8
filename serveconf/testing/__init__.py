"""In-memory twins of the ports, for tests of what is built on them, ours and anyone's.

``FakeCluster`` stands for a cluster, ``FakeEngine`` for Ray below a real ``ActorCluster``; ``tests/contract`` holds both
to what the real ones do. No process is started, time moves when it is told to.
"""

from serveconf.testing.cluster import FakeCluster
from serveconf.testing.engine import FakeEngine
from serveconf.testing.memory import ManualClock, MemoryStore
from serveconf.testing.preflight import FakePreflight

__all__ = ["FakeCluster", "FakeEngine", "FakePreflight", "ManualClock", "MemoryStore"]
