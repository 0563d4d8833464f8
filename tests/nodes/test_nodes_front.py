"""Where proxies listen, changed while visitors come: none of them may find a closed door or a bad answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from conftest import HERE, THERE, Cluster
from place import ASK_S, ask, until
from visitors import Visitors

PATHS = ["/here", "/there"]
PORT = 8000
OTHER_PORT = 8100


def served_from(cluster: Cluster) -> list[str]:
    """The nodes whose proxies are ready and on the newest generation, by address."""
    status = cluster.machines.status()
    ready = [p for p in status["proxies"] if p["state"] == "Ready" and p["generation"] == status["generation"]]
    return sorted(node.ip for proxy in ready if (node := cluster.node_of(proxy["pid"])) is not None)


def is_open(ip: str, port: int = PORT) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((ip, port), timeout=ASK_S).close()
    except ConnectionRefusedError:
        return False
    return True


def changed(cluster: Cluster, addresses: list[tuple[str, int]], proxies: int, **http: Any) -> Visitors:
    """Apply while visitors come, and until there are no other proxies than the given number of ready ones."""
    with Visitors(addresses, PATHS) as visitors:
        assert cluster.apply(HERE, THERE, **http)["outcome"] == "applied"
        until(lambda: [p["state"] for p in cluster.proxies()] == ["Ready"] * proxies, "only wanted proxies are left")
    assert visitors.failures == []
    return visitors


def test_every_node_then_head_only_then_no_server_and_back(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE)
    head, second = cluster.head.ip, cluster.second.ip
    until(lambda: served_from(cluster) == [head], "the head alone serves")
    assert not is_open(second)

    changed(cluster, [(head, PORT)], proxies=2, location="EveryNode")
    until(lambda: served_from(cluster) == [head, second], "both serve")
    for node in (cluster.head, cluster.second):
        assert [ask(f"{node.url}{path}")[0] for path in PATHS] == [200, 200]
        assert json.loads(ask(f"{node.url}/-/routes")[1]) == {"/here": "here", "/there": "there"}

    visitors = changed(cluster, [(second, PORT), (head, PORT)], proxies=1)
    until(lambda: served_from(cluster) == [head], "the head alone serves")
    assert all(visitors.answers.values())  # those who came to the second node went on at the head

    assert cluster.apply(HERE, THERE, location="NoServer")["outcome"] == "applied"
    until(lambda: cluster.proxies() == [], "all proxies have gone")
    assert not is_open(head) and not is_open(second)
    assert cluster.machines.status()["stacks"][0]["state"] == "Healthy"
    assert len(cluster.replicas("there")) == 1

    cluster.apply(HERE, THERE, location="HeadOnly")
    assert [ask(f"{cluster.head.url}{path}")[0] for path in PATHS] == [200, 200]


def test_host_and_port_move_without_a_moment_when_nobody_listens(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE)
    head = cluster.head.ip
    changed(cluster, [(head, PORT)], proxies=1, host=head)
    assert [proxy["address"] for proxy in cluster.proxies()] == [f"{head}:{PORT}"]
    visitors = changed(cluster, [(head, PORT), (head, OTHER_PORT)], proxies=2, port=OTHER_PORT, workers=2)
    assert all(visitors.answers.values())
    assert not is_open(head)
    changed(cluster, [(head, OTHER_PORT), (head, PORT)], proxies=1)


def test_host_that_is_not_the_nodes_is_refused_and_what_served_goes_on(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE)
    with Visitors([(cluster.head.ip, PORT)], PATHS) as visitors:
        done = cluster.machines.run("apply", cluster.spec(HERE, THERE, host=cluster.second.ip))
    assert done.code == 3
    assert f"{cluster.second.ip} cannot be listened on" in done.err
    assert visitors.failures == []
    until(lambda: served_from(cluster) == [cluster.head.ip], "the head alone serves")


def test_root_path_changes_with_no_new_listener(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE)
    before = {proxy["pid"] for proxy in cluster.proxies()}
    with Visitors([(cluster.head.ip, PORT)], PATHS) as visitors:
        cluster.apply(HERE, THERE, root_path="/outer")
        cluster.apply(HERE, THERE)
    assert visitors.failures == []
    assert {proxy["pid"] for proxy in cluster.proxies()} == before


def test_workers_come_and_go_and_share_the_port(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE)
    head = cluster.head.ip
    for count in (3, 1):
        changed(cluster, [(head, PORT)], proxies=count, workers=count)
        proxies = cluster.proxies()
        assert len({proxy["pid"] for proxy in proxies}) == count
        assert {proxy["address"] for proxy in proxies} == {f"0.0.0.0:{PORT}"}
        assert served_from(cluster) == [head] * count


def test_middleware_that_cannot_be_built_changes_no_worker(cluster: Cluster) -> None:
    (cluster.machines.specs / "wrong.py").write_text(
        "class Wrong:\n    def __init__(self, app):\n        raise OSError\n"
    )
    cluster.apply(HERE, workers=2)
    before = cluster.machines.status()["generation"]
    done = cluster.machines.run("apply", cluster.spec(HERE, workers=2, middlewares="[{import_path: 'wrong:Wrong'}]"))
    assert done.code in (1, 3)
    status = cluster.machines.status()
    assert {proxy["generation"] for proxy in status["proxies"]} == {before} == {status["generation"]}
    assert ask(f"{cluster.head.url}/here")[0] == 200


def test_killed_worker_takes_only_its_own_connections_and_comes_back(cluster: Cluster) -> None:
    cluster.apply(HERE, workers=2)
    until(
        lambda: served_from(cluster) == [cluster.head.ip] * 2 and len(cluster.proxies()) == 2,
        "both serve, and no others",
    )
    victim, other = (proxy["pid"] for proxy in cluster.proxies())
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Held(cluster.head.ip)) for _ in range(24)]
        owners = [connection.owner((victim, other)) for connection in held]
        assert set(owners) == {victim, other}
        os.kill(victim, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{victim}/fd/0").exists(), "it has ended")
        assert [connection.answers() for connection in held] == [owner == other for owner in owners]
    until(lambda: victim not in {proxy["pid"] for proxy in cluster.proxies()}, "its death was seen")
    until(lambda: served_from(cluster) == [cluster.head.ip] * 2, "it is back")
    with Visitors([(cluster.head.ip, PORT)], ["/here"]) as visitors:
        pass
    assert visitors.failures == []


class Held:
    """A connection that is kept."""

    def __init__(self, ip: str) -> None:
        self._connection = http.client.HTTPConnection(ip, PORT, timeout=ASK_S)

    def __enter__(self) -> Held:
        self._connection.connect()
        assert self.answers()
        return self

    def __exit__(self, *raised: object) -> None:
        self._connection.close()

    def answers(self) -> bool:
        """Whether it still gets an answer; it never connects anew."""
        self._connection.auto_open = 0
        try:
            self._connection.request("GET", "/-/healthz")
            answer = self._connection.getresponse()
            return answer.read() == b"success" and not answer.will_close
        except (OSError, http.client.HTTPException):
            return False

    def owner(self, pids: tuple[int, ...]) -> int:
        """Which of the processes has its other end."""
        ends = [in_table(self._connection.sock.getpeername()), in_table(self._connection.sock.getsockname())]
        rows = [line.split() for line in Path(f"/proc/{pids[0]}/net/tcp").read_text().splitlines()[1:]]
        (inode,) = (row[9] for row in rows if row[1:3] == ends)
        return next(pid for pid in pids if f"socket:[{inode}]" in links(pid))


def in_table(end: tuple[str, int]) -> str:
    """An IPv4 address and port as the kernel's table of connections writes them."""
    return f"{int.from_bytes(socket.inet_aton(end[0]), sys.byteorder):08X}:{end[1]:04X}"


def links(pid: int) -> set[str]:
    """What the open files of a process are."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(fd.readlink()))
    return found
