"""The commands against a live cluster: their exit codes, and with -o json one document of the contract's shape."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Stack
from place import Place, ask, end, until

WEB = "name: web, import_path: 'web:app', route_prefix: /$"
API = "name: api, import_path: 'web:app', route_prefix: /$/api"

ACTION = {"action", "deployment", "cost", "reason", "before", "after"}
RECEIPT = {"requests", "failed", "retried", "max_gap_ms", "streams_kept", "streams_closed", "duration_s"}
APPLIED = {"stack", "revision", "changed", "outcome", "actions", "receipt", "problems"}
REVISION = {"revision", "stack", "time", "author", "token", "automatic", "source", "commit", "outcome", "summary"}


@pytest.fixture(scope="module")
def shared(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this module."""
    stack = Stack(place, "commands", tmp_path_factory.mktemp("commands"))
    yield stack
    place.ok("delete", "--stack", stack.name)


@pytest.fixture
def live(shared: Stack) -> Stack:
    """Two deployments that serve, whatever the test before has left."""
    shared.says("web", "new")
    shared.spec(WEB, API)
    shared.apply()
    return shared


def assert_applied(result: dict[str, Any], outcome: str) -> None:
    """The contract's apply JSON."""
    assert set(result) == APPLIED
    assert set(result["receipt"]) == RECEIPT
    assert all(set(action) == ACTION for action in result["actions"])
    assert result["outcome"] == outcome


def test_looking_has_the_contracts_shapes(live: Stack) -> None:
    place, name = live.place, live.name
    status = place.ok("status", "-o", "json").json
    assert set(status) == {"generation", "controller", "proxies", "standbys", "stacks"}
    assert set(status["controller"]) == {"pid", "address", "serveconf", "silent_s"}
    assert set(status["proxies"][0]) == {"id", "node_id", "pid", "state", "generation", "address", "serveconf"}
    stack = place.stack(name)
    assert set(stack) == {"name", "state", "revision", "source", "deployments", "data", "warnings"}
    deployment = stack["deployments"][0]
    assert set(deployment) == {
        "name", "state", "route_prefix", "version", "message", "autoscaling", "canary", "replicas",
    }  # fmt: skip
    assert set(deployment["replicas"][0]) == {
        "id", "state", "pid", "node_id", "version", "ongoing", "started", "node", "serveconf",
    }  # fmt: skip
    routes = place.ok("routes", "-o", "json").json
    assert {prefix: to for prefix, to in routes.items() if prefix.startswith(f"/{name}")} == {
        f"/{name}": "web",
        f"/{name}/api": "api",
    }
    history = place.ok("history", "--stack", name, "-o", "json").json
    assert all(set(revision) == REVISION for revision in history)
    assert {revision["stack"] for revision in history} == {name}
    assert history[0]["revision"] == stack["revision"]
    assert history[0]["source"] == str(live.file)
    assert place.run("status", "--exit-code").code == 0


def test_plan_tells_changes_by_its_exit_code_and_touches_nothing(live: Stack) -> None:
    same = live.place.ok("plan", live.file, "--exit-code", "-o", "json").json
    revision = live.place.stack(live.name)["revision"]
    assert same == {"stack": live.name, "base_revision": revision, "changed": False, "actions": []}
    live.says("web", "newest")
    live.spec(WEB)
    done = live.place.run("plan", live.file, "--exit-code", "-o", "json")
    assert done.code == 2
    assert set(done.json) == {"stack", "base_revision", "changed", "actions"}
    assert {(a["deployment"], a["cost"]) for a in done.json["actions"]} == {("web", "roll"), ("api", "remove")}
    assert all(set(action) == ACTION for action in done.json["actions"])
    assert '"said":"new"' in ask(live.url)[1]


def test_saved_plan_is_applied_once_and_then_stale(live: Stack, tmp_path: Path) -> None:
    saved = tmp_path / "saved.plan"
    live.spec(WEB)
    live.place.ok("plan", live.file, "--out", saved)
    assert_applied(live.place.ok("apply", saved, "-o", "json").json, "applied")
    stale = live.place.run("apply", saved, "-o", "json")
    assert stale.code == 6
    assert set(stale.json["error"]) == {"code", "message", "hint"}


def test_rollback_pins_and_resume_ends_the_pin(live: Stack) -> None:
    place, of = live.place, ("--stack", live.name, "-o", "json")
    good = place.stack(live.name)["revision"]
    live.says("web", "bad")
    live.apply()
    assert_applied(place.ok("rollback", *of).json, "applied")
    assert '"said":"new"' in ask(live.url)[1]
    assert place.stack(live.name)["state"] == "Pinned"
    assert place.ok("resume", *of).json == {"stack": live.name, "pinned": False}
    assert place.stack(live.name)["state"] == "Healthy"
    assert place.ok("rollback", str(good), *of).json["outcome"] == "unchanged"
    assert place.ok("rollback", str(good + 1), *of).json["outcome"] == "applied"
    assert '"said":"bad"' in ask(live.url)[1]
    missing = place.run("rollback", "99", *of)
    assert missing.code != 0
    assert "99" in missing.out


def test_delete_takes_a_deployment_and_then_the_stack_away(live: Stack) -> None:
    place, name = live.place, live.name
    kept = live.pids("web")
    assert_applied(place.ok("delete", "api", "--stack", name, "-o", "json").json, "applied")
    assert '"said":"new"' in ask(f"{live.url}")[1]
    assert live.pids("web") == kept
    assert_applied(place.ok("delete", "--stack", name, "-o", "json").json, "applied")
    assert ask(live.url)[0] == 404
    assert name not in {stack["name"] for stack in place.status()["stacks"]}
    assert place.run("delete", "nobody", "--stack", name, "-o", "json").code != 0


def test_no_wait_returns_at_once_and_the_apply_goes_on(stack: Stack) -> None:
    stack.says("web", "later")
    stack.spec(WEB)
    begun = stack.place.ok("apply", stack.file, "--no-wait", "-o", "json").json
    assert set(begun) == {"stack", "operation"}
    until(lambda: ask(stack.url)[0] == 200, "it serves")


def test_deadline_exits_5_and_leaves_what_ran(stack: Stack) -> None:
    stack.says("web", "before")
    stack.spec(WEB)
    stack.apply()
    stack.code(
        "web",
        """
        import asyncio
        from contextlib import asynccontextmanager
        from fastapi import FastAPI

        @asynccontextmanager
        async def lifespan(app):
            await asyncio.Event().wait()
            yield

        app = FastAPI(lifespan=lifespan)
        """,
    )
    done = stack.try_apply("--timeout", "2", "-o", "json")
    assert done.code == 5, done.err
    assert_applied(done.json, "timeout")
    assert '"said":"before"' in ask(stack.url)[1]


def test_two_applies_of_one_stack_follow_each_other(stack: Stack) -> None:
    stack.says("web", "both")
    stack.spec(WEB)
    applies = [stack.place.start("apply", stack.file, "-o", "json") for _ in range(2)]
    ended = [end(apply) for apply in applies]
    assert [done.code for done in ended] == [0, 0], ended
    assert ask(stack.url)[0] == 200


def test_prefix_of_another_stack_is_refused_with_6(live: Stack, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    thief = f"name: thief\napp_dir: {live.folder}\n"
    other.write_text(live.file.read_text().replace(f"name: {live.name}\n", thief))
    done = live.place.run("apply", other)
    assert done.code == 6
    assert live.name in done.err and "route_prefix" in done.err
    assert "thief" not in {stack["name"] for stack in live.place.status()["stacks"]}


def test_empty_spec_needs_a_word(live: Stack) -> None:
    live.file.write_text(f"name: {live.name}\ndeployments: []\n")
    done = live.try_apply()
    assert done.code == 1
    assert "--allow-empty" in done.err
    assert ask(live.url)[0] == 200


def test_invalid_spec_exits_1_and_points_at_the_place(live: Stack) -> None:
    live.file.write_text(live.file.read_text().replace("route_prefix", "route_prefx", 1))
    done = live.try_apply()
    assert done.code == 1
    assert f"{live.file}:4:41: error:" in done.err and "did you mean 'route_prefix'" in done.err
    assert live.try_apply("-o", "json").json["ok"] is False


@pytest.mark.parametrize("command", [("status",), ("routes",), ("history",), ("resume",)], ids=" ".join)
def test_wrong_token_is_refused_with_one_json_document(place: Place, command: tuple[str, ...]) -> None:
    done = place.run("--token", "wrong", *command, "-o", "json")
    assert done.code == 1
    assert set(done.json) == {"error"}
    assert done.json["error"]["code"] == "unauthorized"


def test_a_stack_comes_back_from_its_backup_as_it_was(stack: Stack, tmp_path: Path) -> None:
    stack.says("web", "kept")
    stack.spec("name: web, import_path: 'web:app', route_prefix: /$")
    stack.apply()
    file = tmp_path / "kept.backup"
    told = stack.place.ok("backup", file, "-o", "json").json
    assert stack.name in told["stacks"] and file.stat().st_mode & 0o777 == 0o600
    before = stack.place.ok("dump", "--stack", stack.name).out
    assert stack.place.run("backup", file).code == 1  # it is there already
    assert stack.place.run("restore", file, "--stack", stack.name).code == 6  # it lives
    stack.place.ok("delete", "--stack", stack.name)
    done = stack.place.ok("restore", file, "--stack", stack.name, "-o", "json")
    assert [one["outcome"] for one in done.json["stacks"]] == ["applied"]
    assert json.loads(ask(f"{stack.url}/")[1])["said"] == "kept"
    assert stack.place.ok("dump", "--stack", stack.name).out == before
    file.write_bytes(file.read_bytes()[:-1])
    done = stack.place.run("restore", file, "--replace")
    assert done.code == 1 and "damaged" in done.err


def test_two_apps_in_one_process_have_their_own_context_log_and_health(stack: Stack) -> None:
    body = """
        import logging, os
        from fastapi import FastAPI
        from serveconf import serve
        app = FastAPI()
        print("%s is imported")

        @app.get("/")
        def answer() -> dict:
            print("%s was asked")
            context = serve.get_replica_context()
            return {"pid": os.getpid(), "deployment": context.deployment, "replica": context.replica_tag}
        """
    for name in ("one", "two"):
        stack.code(name, body.replace("%s", name))
    both = [
        f"name: {name}, import_path: '{name}:app', route_prefix: /$/{name}, process: both" for name in ("one", "two")
    ]
    stack.spec(*both)
    stack.apply()
    answers = [json.loads(ask(f"{stack.url}/{name}")[1]) for name in ("one", "two")]
    assert [answer["deployment"] for answer in answers] == ["one", "two"]
    assert answers[0]["pid"] == answers[1]["pid"]
    shown = {d["name"]: d["replicas"][0] for d in stack.place.stack(stack.name)["deployments"]}
    assert {name: replica["pid"] for name, replica in shown.items()} == dict.fromkeys(shown, answers[0]["pid"])
    assert shown["two"]["id"] == answers[1]["replica"]
    log = stack.place.ok("logs", "one", "--stack", stack.name).out
    assert "one is imported" in log and "one was asked" in log
    assert "two is imported" not in log and "two was asked" not in log
    stack.code("two", body.replace("%s", "deux"))
    rolled = stack.apply()["actions"]
    assert [(a["deployment"], a["action"], a["reason"]) for a in rolled] == [
        ("one", "roll", "its process is rolled for: two"),
        ("two", "roll", "code changed: two.py"),
    ]
    os.kill(json.loads(ask(f"{stack.url}/one")[1])["pid"], signal.SIGKILL)
    assert [ask(f"{stack.url}/{name}")[0] for name in ("one", "two")] == [200, 200]
