"""Status and routes as people read them."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest

from serveconf.cli.looking import is_healthy
from serveconf.cli.status_view import render_routes, render_status


def replica(name: str, state: str = "Ready", version: str = "4f2a91c07be3") -> dict[str, Any]:
    return {"id": name, "state": state, "pid": 4242, "node_id": "a1b2c3d4e5f6", "version": version, "ongoing": 3}


def deployment(name: str, state: str, replicas: list[dict[str, Any]], message: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "route_prefix": f"/{name}",
        "version": "4f2a91c07be3",
        "message": message,
        "replicas": replicas,
    }


def status(*deployments: dict[str, Any], state: str = "Healthy") -> dict[str, Any]:
    return {
        "generation": 12,
        "controller": {"pid": 99, "address": "http://127.0.0.1:8001"},
        "proxies": [
            {
                "id": "a1b2c3d4e5f6-0a1b2c3d-0",
                "node_id": "a1b2c3d4e5f6",
                "pid": 77,
                "state": "Ready",
                "generation": 12,
                "address": "127.0.0.1:8000",
            }
        ],
        "stacks": [{"name": "shop", "state": state, "revision": 3, "deployments": list(deployments)}],
    }


HEALTHY = status(deployment("catalog", "Healthy", [replica("catalog-1"), replica("catalog-2")]))

HEALTHY_AS_TEXT = """\
Generation 12, controller http://127.0.0.1:8001 (pid 99)
  PROXY           STATE  PID  NODE      GENERATION
  127.0.0.1:8000  Ready  77   a1b2c3d4  12

Stack shop: Healthy, revision 3
  DEPLOYMENT  STATE    ROUTE     READY  VERSION
  catalog     Healthy  /catalog  2/2    4f2a91c07be3

  REPLICA    STATE  AGE  PID   NODE      ONGOING  VERSION
  catalog-1  Ready       4242  a1b2c3d4  3        4f2a91c07be3
  catalog-2  Ready       4242  a1b2c3d4  3        4f2a91c07be3"""


def test_a_proxy_that_stands_by_is_shown_below_those_that_serve():
    node = "a1b2c3d4e5f6"
    standbys = [
        {"id": f"{node}-0a1b2c3d-s", "node_id": node, "pid": 78, "kind": "proxy", "state": "Ready"},
        {"id": "5eed", "node_id": node, "pid": 79, "kind": "num_cpus=0.1", "state": "Ready"},
    ]
    lines = render_status({**HEALTHY, "standbys": standbys}).splitlines()
    assert lines[1:4] == [
        "  PROXY           STATE  PID  NODE      GENERATION",
        "  127.0.0.1:8000  Ready  77   a1b2c3d4  12",
        "  (stands by)     Ready  78   a1b2c3d4",
    ]


def test_a_status_shows_proxies_stacks_deployments_and_replicas() -> None:
    assert render_status(HEALTHY) == HEALTHY_AS_TEXT


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "[5-9]s"), (50, "5[0-9]s"), (61, "1m"), (7_300, "2h"), (200_000, "2d"), (-30, "0s")]
)
def test_a_replica_is_shown_with_its_age_and_the_name_of_its_node(seconds: int, shown: str) -> None:
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    one = {**replica("catalog-1"), "started": then.isoformat(), "node": "gpu-7"}
    text = render_status(status(deployment("catalog", "Healthy", [one])))
    assert re.search(f"  catalog-1  Ready  {shown} *  4242  gpu-7", text)


def test_a_status_fits_80_columns() -> None:
    assert max(map(len, render_status(HEALTHY).splitlines())) <= 80


def test_the_message_of_a_failed_deployment_is_shown_whole() -> None:
    message = "ModuleNotFoundError: No module named 'torch', which shop/catalog.py imports in line 3 of the file"
    text = render_status(status(deployment("catalog", "Failed", [replica("c-1", "Failed")], message)))
    assert f"  catalog: {message}" in text
    assert "0/1" in text


def test_only_ready_replicas_of_the_wanted_version_count_and_draining_ones_not_at_all() -> None:
    replicas = [replica("a"), replica("b", version="old"), replica("c", "Draining")]
    assert "  1/2  " in render_status(status(deployment("catalog", "Progressing", replicas)))


def test_an_empty_cluster_says_so() -> None:
    empty = HEALTHY | {"proxies": [], "stacks": []}
    assert "no proxy runs" in render_status(empty)
    assert "No stack has been applied." in render_status(empty)
    assert "no deployments" in render_status(status())


def test_states_are_coloured() -> None:
    assert "\x1b[32mHealthy\x1b[0m" in render_status(HEALTHY, color=True)


def test_routes_are_sorted_by_prefix() -> None:
    assert render_routes({"/b": "beta", "/": "root"}) == "PREFIX  DEPLOYMENT\n/       root\n/b      beta"
    assert render_routes({}) == "No routes."


def test_an_engine_that_does_not_answer_is_told_first() -> None:
    silent = {**HEALTHY, "controller": {**HEALTHY["controller"], "silent_s": 12.3}}
    assert render_status(silent).splitlines()[1] == (
        "  Ray's GCS has not answered for 12 s: nothing is applied, started or replaced until it does; what serves goes on"
    )
    assert not is_healthy(silent)
    assert is_healthy(HEALTHY)
