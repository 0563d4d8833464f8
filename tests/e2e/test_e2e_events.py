"""What a live cluster does by itself is in its events, with why, and counted."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from conftest import PLAIN, Stack
from place import ask, until
from prometheus_client.parser import text_string_to_metric_families

sys.path.append(str(Path(__file__).parent.parent / "tracing"))
from otlp_collector import Collector

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
    died, replaced = (event for event in events(stack)[2:] if event["kind"] in ("heal", "replace"))
    assert (died["kind"], died["deployment"], died["data"]["pid"]) == ("heal", "web", victim)
    assert "has ended: the process ended" in died["message"]
    assert {replaced["data"]["pid"]} == stack.pids("web")

    shown = stack.place.ok("events", "--stack", stack.name).out
    assert "heal" in shown and f"{stack.name}/web" in shown


MEASURED = """
    from fastapi import FastAPI
    from serveconf import serve
    from serveconf.handles.calls import Target
    from serveconf.handles.handle import DeploymentHandle

    app = FastAPI()
    asked = serve.metrics.Counter("asked", tag_keys=("who",))
    inner = DeploymentHandle(Target(stack="STACK", deployment="inner"))

    @app.get("/")
    async def answer() -> str:
        asked.inc(tags={"who": "me"})
        return await inner.remote()
    """


def test_applies_starts_and_what_an_app_counts_itself_are_on_the_metrics_page(stack: Stack) -> None:
    stack.code("inner", "def said() -> str:\n    return 'hello'\n")
    stack.code("web", MEASURED.replace("STACK", stack.name))
    stack.spec(f"{WEB}, num_replicas: 2", "name: inner, import_path: 'inner:said', route_prefix: null")
    stack.apply()
    for _ in range(4):
        assert ask(f"{stack.place.url}/{stack.name}") == (200, '"hello"')
    stack.code("web", MEASURED.replace("STACK", stack.name).rstrip() + "  # changed")  # what was counted stays
    stack.apply()
    assert ask(f"{stack.place.url}/{stack.name}") == (200, '"hello"')
    record = json.loads((stack.place.root / "home" / "cluster.json").read_text())
    _, text = ask(f"{record['address']}/metrics", authorization=f"Bearer {record['token']}")
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    def of(name: str, **labels: str) -> float:
        return found[name, frozenset({"stack": stack.name, **labels}.items())]

    assert of("asked_total", deployment="web", who="me") == 5
    caller = f"{stack.name}/web"
    assert of("serveconf_handle_request_duration_seconds_count", deployment="inner", caller=caller) == 5
    starts = [
        value
        for (name, labels), value in found.items()
        if name == "serveconf_replica_start_seconds_count" and labels >= {("stack", stack.name), ("deployment", "web")}
    ]
    assert sum(starts) == 4
    assert of("serveconf_applies_total", outcome="applied") == 2
    answered = {"http_request_method": "GET", "http_response_status_code": "200"}
    assert of("http_server_request_duration_seconds_count", deployment="web", **answered) == 5


@pytest.mark.parametrize("process", ["null", "both"])
def test_spans_of_a_request_form_a_chain_and_tracing_is_turned_on_and_off_live(stack: Stack, process: str) -> None:
    collector = Collector()
    try:
        stack.code("inner", "def said() -> str:\n    return 'hello'\n")
        stack.code("web", MEASURED.replace("STACK", stack.name))
        inner = "name: inner, import_path: 'inner:said', route_prefix: null"
        parts = tuple(f"{part}, process: {process}" for part in (WEB, inner))
        stack.spec(*parts)
        stack.apply()
        pids = stack.pids("web")
        ask(f"{stack.place.url}/{stack.name}")
        stack.spec(*parts, more=f", tracing: {{endpoint: '{collector.endpoint}'}}")
        assert [(action["action"], action["cost"]) for action in stack.apply()["actions"]] == [("route", "route")]
        assert ask(f"{stack.place.url}/{stack.name}") == (200, '"hello"')
        spans = collector.wait_for(4)
        stack.spec(*parts)
        stack.apply()
        ask(f"{stack.place.url}/{stack.name}")
        assert stack.pids("web") == pids
        assert len(collector.spans) == len(spans) == 4
    finally:
        collector.close()
    by_id = {span["id"]: span for span in spans}
    chain = [next(span for span in spans if span["resource"]["service.name"] == "inner")]
    while parent := by_id.get(chain[-1]["parent"]):
        chain.append(parent)
    prefix = f"/{stack.name}"
    assert [(span["resource"]["service.name"], span["name"]) for span in chain] == [
        ("inner", "inner/__call__"),
        ("web", "inner/__call__"),
        ("web", f"GET {prefix}/"),
        ("serveconf-proxy", f"GET {prefix}"),
    ]
    assert {span["trace"] for span in spans} == {chain[0]["trace"]} and chain[-1]["parent"] == ""


def test_the_log_of_a_dead_replica_and_those_of_proxy_and_controller_are_read(stack: Stack) -> None:
    stack.code("web", "print('my last words', flush=True)\n" + textwrap.dedent(PLAIN % "hello"))
    stack.spec(WEB)
    stack.apply()
    (victim,) = stack.pids("web")
    os.kill(victim, signal.SIGKILL)
    until(lambda: any(event["kind"] == "heal" for event in events(stack)), "its death is known")
    found = stack.place.ok(
        "logs", "web", "--stack", stack.name, "--previous", "--grep", "last words", "-o", "json"
    ).json
    assert [row["line"] for row in found] == ["my last words"]
    ready = stack.place.ok("logs", "--controller", "--grep", "controller ready", "-o", "json").json
    assert [row["process"] for row in ready] == ["controller"]
    assert ready[0]["time"] is not None
    assert "proxy listens" in stack.place.ok("logs", "--proxy").out
