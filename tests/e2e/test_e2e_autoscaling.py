"""The number of replicas follows real requests: up, down to none, and back from none, with no request failed or cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Stack
from held import HOLDS, Held
from load import Load
from place import COMMAND_S, ask, until

pytestmark = pytest.mark.ray

SLOW = """
    import asyncio
    import os
    from fastapi import FastAPI
    app = FastAPI()

    @app.get("/")
    async def answer(seconds: float = 0.1) -> dict:
        await asyncio.sleep(seconds)
        return {"pid": os.getpid()}
    """
WEB = (
    "name: web, import_path: 'web:app', route_prefix: /$, autoscaling_config: {min_replicas: 0, max_replicas: 3, "
    "downscale_delay_s: 4, downscale_to_zero_delay_s: 3}"
)


def web(stack: Stack) -> dict[str, Any]:
    (found,) = stack.place.stack(stack.name)["deployments"]
    return dict(found)


def ready(stack: Stack) -> int:
    return sum(replica["state"] == "Ready" for replica in web(stack)["replicas"])


def scales(stack: Stack) -> list[str]:
    done = stack.place.ok("events", "--stack", stack.name, "-o", "json")
    events = [event for event in done.json if event["kind"] == "scale"]
    return [f"{event['data']['before']}-{event['data']['after']} {event['data']['cause']}" for event in events]


def test_up_under_load_down_to_none_and_back_with_nothing_failed(stack: Stack) -> None:
    stack.code("web", SLOW)
    stack.spec(WEB)
    stack.apply()
    assert ready(stack) == 1
    with Load(stack.place.http_port, [f"/{stack.name}/"]) as load:
        until(lambda: ready(stack) == 3, "three replicas")
        state = until(lambda: (now := web(stack)["autoscaling"])["ongoing"] > 0 and now, "what is going on")
        assert (state["min"], state["max"]) == (0, 3)
    assert load.failures == []
    until(lambda: web(stack)["replicas"] == [], "no replica")
    plan = stack.place.ok("plan", stack.file, "-o", "json").json
    assert plan["changed"] is False
    with ThreadPoolExecutor(50) as clients:
        answers = [*clients.map(lambda _: ask(f"{stack.url}/?seconds=0.01"), range(200))]
    assert [answer for answer in answers if answer[0] != 200] == []
    assert "1-0 idle" in scales(stack) and any(line.startswith("0-") for line in scales(stack))


def test_a_long_answer_is_not_cut_when_its_replica_goes(stack: Stack) -> None:
    stack.code("web", HOLDS % "long")
    some = WEB.replace("min_replicas: 0", "min_replicas: 1, target_ongoing_requests: 3")  # eight are for 3, two for 1
    stack.spec(f"{some}, graceful_shutdown_timeout_s: 120")
    stack.apply()
    with Held(stack.url, "abcdefgh") as long:
        until(lambda: ready(stack) == 3, "three replicas")
        long.arrived()  # those too that waited for a replica
        long.let_go(*"bcdefg")
        until(lambda: ready(stack) == 1, "the others drain, or have gone")
        long.let_go(*"ah")
        assert [answer for answer in long.answers() if answer[0] != 200] == []
    until(lambda: len(web(stack)["replicas"]) == 1, "one replica")


def test_a_number_by_hand(stack: Stack) -> None:
    stack.says("web", "hello")
    stack.spec("name: web, import_path: 'web:app', route_prefix: /$")
    stack.apply()
    done = stack.place.ok("scale", "web", "2", "--stack", stack.name, "-o", "json")
    assert done.json == {"stack": stack.name, "deployment": "web", "before": 1, "replicas": 2, "ready": 2}
    assert stack.place.run("scale", "web", "0", "--stack", stack.name).code == 6
    assert stack.apply()["outcome"] == "applied"
    assert ready(stack) == 1


def test_a_replica_that_has_begun_to_drain_serves_on_when_it_is_wanted_again(stack: Stack) -> None:
    stack.code("web", HOLDS % "long")
    stack.spec("name: web, import_path: 'web:app', route_prefix: /$, num_replicas: 2, graceful_shutdown_timeout_s: 120")
    stack.apply()
    before = {replica["id"] for replica in web(stack)["replicas"]}
    with Held(stack.url, "abcdefgh") as long:
        long.arrived()
        stack.place.ok("scale", "web", "1", "--stack", stack.name)
        until(lambda: ready(stack) == 1, "one that drains")
        stack.place.ok("scale", "web", "2", "--stack", stack.name)
        until(lambda: ready(stack) == 2, "two again")
        assert {replica["id"] for replica in web(stack)["replicas"]} == before
        long.let_go()
        assert [answer for answer in long.answers() if answer[0] != 200] == []
    until(lambda: len({ask(stack.url)[1] for _ in range(20)}) == 2, "answers of both")


DEMAND = """
import json, sys
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state
found = get_cluster_resource_state(GcsClient(address=sys.argv[1])).pending_resource_requests
print(json.dumps([[dict(one.request.resources_bundle), one.count] for one in found]))
"""


def demand(stack: Stack) -> float:
    """CPUs that Ray's own autoscaler is asked for: what it makes nodes of."""
    place = stack.place
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place.root / "home/ray_token")}
    command = [sys.executable, "-c", DEMAND, place.record()["ray"]["address"]]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=COMMAND_S, check=True)
    return float(sum(bundle.get("CPU", 0) * count for bundle, count in json.loads(done.stdout.splitlines()[-1])))


def test_what_finds_no_room_is_shown_as_wanted_and_rays_own_autoscaler_sees_it(stack: Stack) -> None:
    stack.says("web", "hello")
    most = (os.cpu_count() or 1) + 4
    config = f"autoscaling_config: {{min_replicas: 1, max_replicas: {most}}}, ray_actor_options: {{num_cpus: 1}}"
    stack.spec(f"name: web, import_path: 'web:app', route_prefix: /$, {config}")
    stack.apply()
    stack.place.ok("scale", "web", str(most), "--stack", stack.name, "--no-wait")
    assert until(lambda: demand(stack), "a demand") >= 1
    state = web(stack)
    assert state["autoscaling"]["desired"] == most > ready(stack)
    assert "Starting" in {replica["state"] for replica in state["replicas"]}
    assert ask(stack.url)[0] == 200
    stack.place.ok("scale", "web", "1", "--stack", stack.name)
    until(lambda: demand(stack) == 0, "no demand")
