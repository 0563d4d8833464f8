"""What a live cluster does by itself is in its events, with why, and counted."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from conftest import Stack
from place import ask, until

WEB = "name: web, import_path: 'web:app', route_prefix: /$"


def events(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.place.ok("events", "--stack", stack.name, "-o", "json").json
    return found


def test_an_apply_and_a_killed_replica_are_told_and_counted(stack: Stack) -> None:
    stack.says("web", "hello")
    stack.spec(WEB)
    stack.apply()
    first, last = events(stack)
    assert first["kind"] == last["kind"] == "apply"
    assert first["message"].startswith("revision 1 is being applied") and last["message"] == "revision 1 is applied"
    assert first["data"]["source"] == str(stack.file)

    (victim,) = stack.pids("web")
    os.kill(victim, signal.SIGKILL)
    until(lambda: any(event["kind"] == "replace" for event in events(stack)), "another one has taken its place")
    died, replaced = events(stack)[2:]
    assert (died["kind"], died["deployment"], died["data"]["pid"]) == ("heal", "web", victim)
    assert "has ended: the process ended" in died["message"]
    assert {replaced["data"]["pid"]} == stack.pids("web")

    shown = stack.place.ok("events", "--stack", stack.name).out
    assert "heal" in shown and f"{stack.name}/web" in shown


MEASURED = """
    from fastapi import FastAPI
    from serveconf import serve

    app = FastAPI()
    asked = serve.metrics.Counter("asked", tag_keys=("who",))
    inner = serve.get_deployment_handle("inner", "inner")

    @app.get("/")
    async def answer() -> str:
        asked.inc(tags={"who": "me"})
        return await inner.remote()
    """


def test_applies_starts_and_what_an_app_counts_itself_are_on_the_metrics_page(stack: Stack) -> None:
    stack.code("inner", "def said() -> str:\n    return 'hello'\n")
    stack.code("web", MEASURED.replace('"inner", "inner"', f'"inner", "{stack.name}"'))
    stack.spec(f"{WEB}, num_replicas: 2", "name: inner, import_path: 'inner:said', route_prefix: null")
    stack.apply()
    for _ in range(5):
        assert ask(f"{stack.place.url}/{stack.name}") == (200, '"hello"')
    record = json.loads((stack.place.root / "home" / "cluster.json").read_text())
    _, text = ask(f"{record['address']}/metrics", authorization=f"Bearer {record['token']}")
    labels = f'stack="{stack.name}",deployment='
    lines = [line for line in text.splitlines() if labels in line or f'{{stack="{stack.name}",outcome' in line]
    found = dict(line.rsplit(" ", 1) for line in lines)
    assert found[f'asked_total{{{labels}"web",who="me"}}'] == "5.0"
    calls = f'serveconf_handle_request_duration_seconds_count{{{labels}"inner",caller="{stack.name}/web"}}'
    assert float(found[calls]) == 5
    assert float(found[f'serveconf_replica_start_seconds_count{{{labels}"web",standby="false"}}']) == 2
    assert float(found[f'serveconf_applies_total{{stack="{stack.name}",outcome="applied"}}']) == 1
