"""A few of the faults of chaos.py, seeded, under load from every living proxy; the script itself has all of them, and takes an hour."""

from __future__ import annotations

from collections import Counter

from chaos import Chaos
from conftest import Cluster

FAULTS = ("freeze a replica", "kill a replica", "kill a proxy", "kill the controller")
NEVER = float("inf")  # how soon is for the script to tell


def test_no_request_fails_at_living_proxies_whatever_is_killed_and_the_status_is_true_again(cluster: Cluster) -> None:
    chaos = Chaos(cluster.machines, seed=17, connections=8)
    chaos.begin()
    try:
        for fault in chaos.random.sample(FAULTS, len(FAULTS)):
            chaos.strike(fault)
    finally:
        chaos.load.end()
    assert chaos.load.counts.failed == Counter()
    assert chaos.slow(NEVER) == []
    assert chaos.load.counts.requests > 0
