"""The labs as fixtures; Ray's is started once, by these tests, and ended by them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from labs import ActorLab, FakeEngineLab, FakeLab, Lab, RayLab

from serveconf.cluster import actors as actors_module
from serveconf.cluster import handle as handle_module
from serveconf.cluster import proxy_handles
from serveconf.cluster.settings import NAMESPACE


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of this process, until these tests are over: others look at whether their process is connected to one."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local",
            namespace=NAMESPACE,
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            yield
        finally:
            ray.shutdown()


LABS = ["fake cluster", "fake engine", pytest.param("ray", marks=pytest.mark.ray)]


@pytest.fixture(params=LABS)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """Each of the three."""
    made = make(request)
    await made.cluster.refresh()
    yield made
    await made.close()


@pytest.fixture(params=LABS[1:])
async def actors(request: pytest.FixtureRequest) -> AsyncIterator[ActorLab]:
    """Those with actors, that outlive a controller."""
    made = make(request)
    assert isinstance(made, ActorLab)
    await made.cluster.refresh()
    yield made
    await made.close()


def make(request: pytest.FixtureRequest) -> Lab:
    if request.param == "ray":
        from serveconf.cluster.ray_engine import RayEngine

        request.getfixturevalue("local_ray")
        return RayLab(RayEngine())
    return FakeLab() if request.param == "fake cluster" else FakeEngineLab()


@pytest.fixture
async def quick_lab(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEngineLab]:
    """One whose engine does as it is told, where everything that takes seconds takes hundredths."""
    monkeypatch.setattr(handle_module, "ANSWER_S", 0.1)
    monkeypatch.setattr(actors_module, "ANSWER_S", 0.1)
    monkeypatch.setattr(handle_module, "AGAIN_S", 0.01)
    monkeypatch.setattr(handle_module, "AWAY_S", 0.2)
    monkeypatch.setattr(handle_module, "KILL_GRACE_S", 0.2)
    monkeypatch.setattr(proxy_handles, "PERIOD_S", 0.02)
    monkeypatch.setattr(proxy_handles, "ANSWER_S", 0.05)
    monkeypatch.setattr(proxy_handles, "END_S", 0.3)
    made = FakeEngineLab()
    await made.cluster.refresh()
    yield made
    for actor in made.fake.actors.values():
        actor.hung.set()
        actor.return_()
    await made.close()
