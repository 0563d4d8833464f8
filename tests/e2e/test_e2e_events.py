"""What a live cluster does by itself is in its events, with why, and counted."""

from __future__ import annotations

import os
import signal
from typing import Any

from conftest import Stack
from place import until

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
