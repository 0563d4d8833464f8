"""Nodes that join, and nodes that die with all that runs on them."""

from __future__ import annotations

from conftest import HERE, Cluster
from place import ask, until
from test_nodes_front import PORT, served_from
from visitors import Visitors

SPREAD = "name: spread, import_path: 'told:app', num_replicas: 2, ray_actor_options: {resources: {two: 1}}"
PATHS = ["/here", "/spread"]


def nodes_of(cluster: Cluster, deployment: str) -> set[str]:
    """On which machines the ready replicas of a deployment are."""
    pids = [replica["pid"] for replica in cluster.replicas(deployment) if replica["state"] == "Ready"]
    return {node.ip if (node := cluster.node_of(pid)) is not None else "gone" for pid in pids}


def test_node_that_joins_gets_a_proxy_and_one_that_dies_takes_no_request_of_others_with_it(cluster: Cluster) -> None:
    cluster.apply(HERE, location="EveryNode")
    third = cluster.machines.add("--num-cpus=1", '--resources={"two": 8}').joined()
    at_first = [cluster.head.ip, cluster.second.ip]
    until(lambda: served_from(cluster) == [*at_first, third.ip], "the new node has a proxy")
    assert ask(f"{third.url}/here")[0] == 200

    cluster.apply(HERE, SPREAD, location="EveryNode")
    assert nodes_of(cluster, "spread") == {cluster.second.ip, third.ip}
    assert [ask(f"{node.url}{path}")[0] for node in cluster.machines.nodes for path in PATHS] == [200] * 6

    with Visitors([(cluster.head.ip, PORT)], PATHS) as visitors:
        third.die()
        until(
            lambda: len(cluster.replicas("spread")) == 2 and nodes_of(cluster, "spread") == {cluster.second.ip}, "moved"
        )
        until(
            lambda: served_from(cluster) == at_first and len(cluster.proxies()) == 2,
            "the proxies are those of live nodes",
        )
    assert visitors.failures == []
    assert [ask(f"{node.url}{path}")[0] for node in (cluster.head, cluster.second) for path in PATHS] == [200] * 4
    assert cluster.apply(HERE)["outcome"] == "applied"
