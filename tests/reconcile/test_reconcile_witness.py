"""What has changed between two looks is found without looking at each of thousands, and is what a look at each would find."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.plan.state import Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.journal import Journal
from serveconf.reconcile.ports import NodeState
from serveconf.reconcile.witness import MANY, Witness, changes
from serveconf.testing import FakeCluster, ManualClock


def node(name: int, ip: int) -> NodeState:
    return NodeState(id=str(name), is_head=False, ip=str(ip))


Nodes = st.dictionaries(st.integers(0, 12), st.integers(0, 2), max_size=12)


@given(Nodes, Nodes, st.booleans())
def test_changes_are_those_that_a_look_at_each_finds(before: dict[int, int], now: dict[int, int], kept: bool) -> None:
    if kept:  # as most looks: the order stays, what has changed is in its place
        now = {**{name: now.get(name, ip) for name, ip in before.items()}, **now}
    old, new = [[node(*one) for one in state.items()] for state in (before, now)]
    found = {(was.id if was else None, is_now.id if is_now else None) for was, is_now in changes(old, new)}
    expected = {(str(one) if one in before else None, str(one)) for one in now if before.get(one) != now[one]}
    assert found == expected | {(str(one), None) for one in before.keys() - now.keys()}


class Counted(FakeCluster):
    """A cluster of many replicas that says how often it was looked at."""

    def __init__(self) -> None:
        super().__init__()
        replicas = [
            ReplicaState(id=f"r{n}", stack="shop", deployment="web", version="v", phase=ReplicaPhase.READY)
            for n in range(MANY)
        ]
        self.there = {replica.id: replica for replica in replicas}
        self.looks = 0

    def observe(self) -> Observed:
        self.looks += 1
        return Observed(replicas=tuple(self.there.values()), proxies=())


@pytest.mark.anyio
async def test_many_changes_among_many_replicas_are_one_look() -> None:
    cluster, told = Counted(), asyncio.Event()
    witness = Witness(cluster, ManualClock(), Journal(note=lambda **_: told.set()))
    cluster.looks = 0
    for number in range(50):
        del cluster.there[f"r{number}"]
        witness.heed()
    assert cluster.looks == 0
    await told.wait()
    assert cluster.looks == 1
