"""Replicas on other nodes than the proxy that serves them, and whether Ray is asked for what the spec says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from conftest import HERE, THERE, Cluster
from place import ASK_S, ask
from test_nodes_front import links
from websockets.sync.client import connect

from serveconf.wire import ProtocolError, WireClient

EVERYTHING = (
    "name: asked, import_path: 'told:app', ray_actor_options: {num_cpus: 0.5, num_gpus: 1, memory: 50000000, "
    "accelerator_type: T4, resources: {two: 2}, label_selector: {zone: east}, runtime_env: {env_vars: {WHO: me}}}"
)
ELSEWHERE = "name: asked, import_path: 'told:app', ray_actor_options: {num_cpus: 0, label_selector: {zone: '!east'}}"


def listening(pid: int) -> set[tuple[str, int]]:
    """The TCP addresses on which a process listens."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    sockets = links(pid)
    found = [row[1].split(":") for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    return {(".".join(str(byte) for byte in reversed(bytes.fromhex(ip))), int(port, 16)) for ip, port in found}


def test_replica_elsewhere_answers_through_the_head_node_and_runs_what_was_applied(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE)
    (proxy,) = cluster.proxies()
    assert cluster.node_of(proxy["pid"]).is_head
    here, there = (json.loads(ask(f"{cluster.head.url}/{name}")[1]) for name in ("here", "there"))
    assert cluster.node_of(here["pid"]) is cluster.head
    assert cluster.node_of(there["pid"]) is cluster.second
    assert here["cwd"] == str(cluster.machines.specs)
    assert there["cwd"].startswith(str(cluster.second.folder))  # the folder of the spec is not on that node
    assert there["file"] == f"{there['cwd']}/told.py"


def test_bodies_and_websockets_travel_between_nodes(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE)
    size = 8 * 1024 * 1024
    assert ask(f"{cluster.head.url}/there/size", data=b"x" * size) == (200, str(size))
    with connect(f"ws://{cluster.head.ip}:8000/there/echo", open_timeout=ASK_S) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"


def test_only_replicas_that_a_proxy_elsewhere_needs_listen_on_tcp_and_they_want_the_secret(cluster: Cluster) -> None:
    cluster.apply(HERE.replace("here", "near"), THERE.replace("there", "far"))
    (near,), (far,) = cluster.replicas("near"), cluster.replicas("far")
    rays_own = len(listening(near["pid"]))
    addresses = listening(far["pid"])
    assert len(addresses) == rays_own + 1
    assert cluster.second.ip in {ip for ip, _ in addresses}
    for _, port in addresses:
        with pytest.raises((ProtocolError, OSError)):
            asyncio.run(WireClient.connect(f"tcp:{cluster.second.ip}:{port}", secret=b"x" * 32))
    assert ask(f"{cluster.head.url}/far")[0] == 200


def test_ray_is_asked_for_what_ray_actor_options_say(cluster: Cluster) -> None:
    cluster.apply(EVERYTHING)
    told = json.loads(ask(f"{cluster.head.url}/asked")[1])
    assert cluster.node_of(told["pid"]) is cluster.second
    expected = {"CPU": 0.5, "GPU": 1, "memory": 50000000, "two": 2, "accelerator_type:T4": 0.001}
    assert told["resources"] == expected
    assert told["env"]["WHO"] == "me"
    assert told["env"]["CUDA_VISIBLE_DEVICES"] in ("0", "1")


def test_label_selector_keeps_a_replica_from_a_node(cluster: Cluster) -> None:
    cluster.apply(ELSEWHERE)
    told = json.loads(ask(f"{cluster.head.url}/asked")[1])
    assert cluster.node_of(told["pid"]) is cluster.head


def test_resources_that_no_node_has_are_refused_before_anything_starts(cluster: Cluster) -> None:
    cluster.apply(HERE)
    before = cluster.replicas("here")
    file = cluster.spec(HERE, THERE.replace("two: 1", "two: 9"))
    done = cluster.machines.run("apply", file)
    assert done.code == 1
    assert "fits on no node" in done.err and "two 9" in done.err
    done = cluster.machines.run("apply", cluster.spec(HERE, ELSEWHERE.replace("!east", "in(north, south)")))
    assert done.code == 1
    assert "zone=in(north, south) (the nodes have east)" in done.err
    assert cluster.replicas("here") == before


def test_no_more_replicas_than_the_spec_allows_are_on_a_node(cluster: Cluster) -> None:
    apart = "name: apart, import_path: 'told:app', ray_actor_options: {num_cpus: 0}, max_replicas_per_node: 1, num_replicas: "
    cluster.apply(f"{apart}2")
    before = cluster.replicas("apart")
    assert {cluster.node_of(replica["pid"]) for replica in before} == {cluster.head, cluster.second}
    done = cluster.machines.run("apply", cluster.spec(f"{apart}3"))
    assert done.code == 1
    assert "room for 0 of 1 new replicas" in done.err
    assert "at most 1 of them on a node" in done.err
    assert cluster.replicas("apart") == before
