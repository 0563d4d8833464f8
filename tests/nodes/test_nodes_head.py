"""The head node ends with its Ray and everything on it, and is started anew on the state that its GCS kept in Redis; or its
GCS alone does not answer for a while.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import HEAD, HERE, THERE, Cluster
from place import ask, end, until
from test_nodes_front import PORT, served_from
from visitors import Visitors

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server, for Ray's GCS")


def control(cluster: Cluster) -> Any:
    """What ``status`` tells; None where there is no controller that it could ask."""
    done = cluster.machines.run("status", "-o", "json")
    return done.json if done.code == 0 else None


@needs_redis
def test_head_started_anew_goes_on_by_itself_and_workers_serve_meanwhile(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE, location="EveryNode")
    before, far = cluster.machines.status(), {replica["pid"] for replica in cluster.replicas("there")}
    with Visitors([(cluster.second.ip, PORT)], ["/there"]) as visitors:
        cluster.head.die()
        until(lambda: control(cluster) is None, "the controller is gone")
        met = sum(visitors.answers.values())
        until(lambda: sum(visitors.answers.values()) > met + 50, "visitors are answered without a head")
        cluster.head.start(*HEAD)
        cluster.head.joined()
        until(lambda: control(cluster) is not None, "the controller is back, and knows its token")
        until(lambda: served_from(cluster) == [cluster.head.ip, cluster.second.ip], "the head has a proxy")
        until(lambda: [r["state"] for r in cluster.replicas("here")] == ["Ready"], "what ran there runs again")
    assert visitors.failures == []
    after = cluster.machines.status()
    assert after["stacks"][0]["revision"] == before["stacks"][0]["revision"]
    assert after["controller"]["pid"] != before["controller"]["pid"]
    assert {replica["pid"] for replica in cluster.replicas("there")} == far
    assert [ask(f"{node.url}{path}")[0] for node in cluster.machines.nodes[:2] for path in ("/here", "/there")] == [
        200
    ] * 4
    assert cluster.apply(HERE, THERE, location="EveryNode")["outcome"] == "unchanged"


def test_gcs_that_does_not_answer_is_told_soon_and_requests_go_on(cluster: Cluster) -> None:
    cluster.apply(HERE, THERE, location="EveryNode")
    gcs = next(pid for pid in cluster.head.processes() if b"gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes())
    other = cluster.spec(HERE, location="EveryNode")
    with Visitors([(cluster.second.ip, PORT)], ["/there", "/here"]) as visitors:
        os.kill(gcs, signal.SIGSTOP)
        try:
            early = cluster.machines.start("apply", other)  # before anybody knows of it
            until(lambda: cluster.machines.status()["controller"]["silent_s"] is not None, "the status says so")
            applied = [end(early), cluster.machines.run("apply", other)]
            told = cluster.machines.run("status", "--exit-code")
        finally:
            os.kill(gcs, signal.SIGCONT)
        until(lambda: cluster.machines.status()["controller"]["silent_s"] is None, "it answers again")
    assert [done.code for done in applied] == [1, 1]
    assert all("Ray's GCS has not answered for" in done.err for done in applied)
    assert told.code == 1
    assert "Ray's GCS has not answered for" in told.out
    assert visitors.failures == []
    assert cluster.apply(HERE, THERE, location="EveryNode")["outcome"] == "unchanged"
