"""A script's tie to the control API, asked over real sockets, without Ray: what it deploys, what goes with it, what interrupts it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stage

from serveconf import serve
from serveconf.client import Client
from serveconf.errors import AuthorError, CodeFailed, NotFound, OperatorError

sessions = importlib.import_module("serveconf.serve.session")  # the package has a function of that name
WITHIN_S = 120.0
MODULE = """
from serveconf import serve

@serve.deployment
def hello(): return "hi"

@serve.deployment(num_replicas=2)
def bye(): return "bye"
"""
numbers = iter(range(1000))


@pytest.fixture
def stage(shared_stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A control API that this process finds, without a stack; this process has no session yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SERVECONF_ADDRESS", shared_stage.url)
    monkeypatch.setenv("SERVECONF_TOKEN", "secret")
    monkeypatch.setattr(sessions, "connected_to", lambda: None)
    monkeypatch.setattr(sessions, "_session", None)
    yield shared_stage
    shared_stage.empty()


@pytest.fixture
def script(stage: Stage, tmp_path: Path) -> Any:
    """A module with two deployments."""
    name = f"script_of_{next(numbers)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    yield importlib.import_module(name)
    del sys.modules[name]


def until(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not look():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def deployed(stage: Stage) -> dict[str, list[str]]:
    """What each stack has, once nothing goes any more."""
    found = Client(stage.url, "secret").status()["stacks"]
    return {
        one["name"]: sorted(d["name"] for d in one["deployments"] if d["state"] != "Deleting")
        for one in found
        if one["state"] != "Deleting"
    }


class All(set[str]):
    """Every version is broken."""

    def __contains__(self, version: object) -> bool:
        return True


def test_each_deploy_adds_what_it_names_and_leaves_the_rest(stage: Stage, script: Any) -> None:
    script.hello.deploy()
    script.bye.deploy()
    assert deployed(stage) == {"default": ["bye", "hello"]}
    script.hello.deploy()  # twice in a row
    script.bye.options(num_replicas=1).deploy()
    assert sorted(serve.list_deployments()) == ["bye", "hello"]
    (stack,) = serve.status().stacks
    assert {d.name: len(d.replicas) for d in stack.deployments} == {"bye": 1, "hello": 1}
    script.hello.delete()
    assert deployed(stage) == {"default": ["bye"]}
    with pytest.raises(NotFound, match="there is no deployment 'hello'"):
        serve.get_deployment("hello")


def test_what_is_deployed_already_can_be_changed_by_who_has_no_code_of_it(stage: Stage, script: Any) -> None:
    script.bye.deploy()
    serve.get_deployment("bye").options(num_replicas=3).deploy()
    (stack,) = serve.status().stacks
    assert [len(d.replicas) for d in stack.deployments] == [3]
    serve.delete("bye")
    assert deployed(stage) == {"default": []}


@pytest.mark.parametrize("detached", [True, False])
def test_what_is_not_detached_goes_with_the_process_and_nothing_else(stage: Stage, script: Any, detached: bool) -> None:
    stage.apply({"name": "theirs", "import_path": "web:app", "route_prefix": "/theirs"}, stack="default")
    serve.start(detached=detached)
    script.hello.deploy()
    assert deployed(stage) == {"default": ["hello", "theirs"]}
    sessions._end()
    assert deployed(stage) == {"default": ["hello", "theirs"] if detached else ["theirs"]}


def test_a_process_that_ends_after_its_controller_says_what_it_could_not_do(
    stage: Stage, script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve.start()
    script.hello.deploy()

    def gone(http: Any = None) -> Any:
        raise OperatorError("no serveconf answers")

    monkeypatch.setattr(sessions, "session", gone)
    sessions._end()
    assert "serveconf: could not clean up: no serveconf answers" in capsys.readouterr().err


def test_a_controller_that_comes_back_elsewhere_is_found_again(
    stage: Stage, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Stage(tmp_path / "first")
    monkeypatch.setenv("SERVECONF_ADDRESS", first.url)
    script.hello.deploy()
    assert deployed(first) == {"default": ["hello"]}
    first.close()
    monkeypatch.setenv("SERVECONF_ADDRESS", stage.url)
    script.bye.deploy()
    assert deployed(stage) == {"default": ["bye"]}


def test_an_apply_of_data_says_where_it_is_wrong_and_once_more_changes_nothing(stage: Stage, script: Any) -> None:
    spec = {"name": "shop", "deployments": [{"name": "web", "import_path": f"{script.__name__}:hello"}]}
    assert serve.apply(spec)["outcome"] == "applied"
    assert serve.apply(spec)["outcome"] == "unchanged"
    with pytest.raises(AuthorError, match="num_replica"):
        serve.apply({**spec, "deployments": [{**spec["deployments"][0], "num_replica": 2}]})  # type: ignore[index,dict-item]
    assert deployed(stage) == {"shop": ["web"]}


def test_what_does_not_start_is_an_error_of_the_code_with_its_traceback(stage: Stage, script: Any) -> None:
    script.hello.deploy()
    stage.cluster.broken = All()
    with pytest.raises((CodeFailed, AuthorError), match="RuntimeError: broken"):
        script.bye.deploy()
    assert deployed(stage) == {"default": ["hello"]}


def interrupted(stage: Stage, work: Callable[[], object]) -> None:
    """A Ctrl-C while the replica of ``work`` starts."""
    client = Client(stage.url, "secret")

    def starting() -> bool:
        stacks = client.status()["stacks"]
        return any(one["state"] == "Starting" for s in stacks for d in s["deployments"] for one in d["replicas"])

    def press() -> None:
        try:
            until(starting, "a start")
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    stage.hold()
    thread = threading.Thread(target=press)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        thread.join()
        stage.let_go()


@pytest.mark.parametrize("how", ["deploy", "apply"])
def test_a_ctrl_c_takes_back_what_was_begun(
    stage: Stage, script: Any, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``serve.apply`` left its apply to go on by itself."""
    spec = {"name": "shop", "deployments": [{"name": "web", "import_path": f"{script.__name__}:hello"}]}
    interrupted(stage, script.hello.deploy if how == "deploy" else lambda: serve.apply(spec))
    assert "serveconf: interrupted: nothing was switched" in capsys.readouterr().err
    until(lambda: not any(deployed(stage).values()), "what had been started is removed")


def test_a_ctrl_c_stays_one_where_nobody_is_left_to_be_told(
    stage: Stage, script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cancel(client: Client, operation: str) -> Any:
        raise OperatorError("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(Client, "cancel", cancel)
        interrupted(stage, script.hello.deploy)
    assert "serveconf: interrupted: nobody answers" in capsys.readouterr().err
    until(lambda: deployed(stage) == {"default": ["hello"]}, "it goes on by itself")


def test_a_module_that_deploys_while_it_is_imported_to_be_served_is_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "is_importing", lambda: True)
    with pytest.raises(AuthorError, match="while it is imported to be served") as refused:
        serve.start()
    assert "__main__" in (refused.value.hint or "")
