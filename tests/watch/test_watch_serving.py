"""Stacks brought about through a whole control API, as ``run``, ``watch`` and ``sync`` do it: no Ray, real requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stage

from serveconf.client import Client
from serveconf.errors import OperatorError, Unreachable
from serveconf.local_ray import free_port
from serveconf.watch.look import Look, look_at
from serveconf.watch.memory import Fate
from serveconf.watch.ports import Said
from serveconf.watch.serving import ControlApi

SPEC = (
    "name: {name}\ndeployments:\n  - {{name: web, import_path: 'web:app', route_prefix: /{name}, num_replicas: {n}}}\n"
)
Make = Callable[..., ControlApi]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    stage = Stage(tmp_path / "packages")
    yield stage
    stage.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/web.py").write_text("app = 1\n")
    return written(tmp_path / "app/shop.yaml")


def written(file: Path, n: int = 1, name: str = "shop") -> Path:
    file.write_text(SPEC.format(name=name, n=n))
    return file


@pytest.fixture
def said() -> list[Said]:
    return []


@pytest.fixture
def make(stage: Stage, said: list[Said]) -> Make:
    return lambda **options: ControlApi(lambda: Client(stage.url, "secret"), said.append, **options)


def nothing() -> None:
    return None


class All(set[str]):
    """Every version is broken."""

    def __contains__(self, version: object) -> bool:
        return True


def test_what_is_applied_serves_and_is_told_as_it_goes(make: Make, file: Path, said: list[Said]) -> None:
    api, live = make(), []
    outcome = api.apply(look_at(file), first=True, live=lambda: live.append("live"))
    assert (outcome.fate, outcome.result["revision"], live) == (Fate.SERVED, 1, ["live"])
    assert {one.message for one in said if one.kind == "event"} >= {"plan", "phase", "replica", "result"}
    assert api.apply(look_at(file), first=False, live=nothing).result["outcome"] == "unchanged"
    assert api.tried == {"shop"} and api.drift(look_at(file)) is None


def test_a_pin_holds_off_all_but_who_applies_by_hand(make: Make, stage: Stage, file: Path) -> None:
    make().apply(look_at(file), first=True, live=nothing)
    make().apply(look_at(written(file, 2)), first=True, live=nothing)
    other = Client(stage.url, "secret")
    assert list(other.events(other.begin("shop", "rollback", {"author": "ada"})))[-1]["outcome"] == "applied"
    held = make().apply(look_at(file), first=True, live=nothing)
    assert (held.fate, held.message) == (Fate.PINNED, "stack 'shop' is pinned to revision 3 by a rollback")
    drift = make().drift(look_at(file))
    assert drift is not None and drift.pinned
    assert make(by_hand=True).apply(look_at(file), first=True, live=nothing).fate is Fate.SERVED


def test_drift_says_who_has_done_what(make: Make, stage: Stage, file: Path) -> None:
    api = make()
    api.apply(look_at(file), first=True, live=nothing)
    stage.apply({"name": "web", "import_path": "web:app", "route_prefix": "/shop", "num_replicas": 3}, code="2")
    drift = api.drift(look_at(file))
    assert drift is not None and not drift.pinned
    assert drift.message.startswith("revision 2 by ada@host of serve.yaml serves instead (")


def test_what_came_to_the_same_is_no_drift(make: Make, file: Path) -> None:
    api = make()
    api.apply(look_at(file), first=True, live=nothing)
    make().apply(look_at(written(file, 2)), first=True, live=nothing)
    assert api.drift(look_at(file)) is None  # as the file says by now, whoever has brought it there


def test_a_stack_that_somebody_has_taken_away_is_missed(make: Make, stage: Stage, file: Path) -> None:
    api = make()
    api.apply(look_at(file), first=True, live=nothing)
    other = Client(stage.url, "secret")
    list(other.events(other.begin("shop", "delete", {"author": "ada"})))
    stage.do(until(lambda: "shop" not in stage.plane.ledger.heads))
    drift = api.drift(look_at(file))
    assert drift is not None and drift.message == "there is no stack 'shop' any more"


def test_what_does_not_start_is_in_quarantine_until_it_is_another(make: Make, stage: Stage, file: Path) -> None:
    make().apply(look_at(file), first=True, live=nothing)
    stage.cluster.broken = All()
    (file.parent / "web.py").write_text("app = 2\n")
    refused = make().apply(look_at(file), first=True, live=nothing)
    assert refused.fate is Fate.REFUSED and "broken" in refused.message
    assert make().quarantined(look_at(file)) == refused.message
    assert make(retry=True).quarantined(look_at(file)) == make(by_hand=True).quarantined(look_at(file)) == ""
    (file.parent / "web.py").write_text("app = 3\n")
    assert make().quarantined(look_at(file)) == ""
    stage.cluster.broken = set()
    assert make().apply(look_at(file), first=True, live=nothing).fate is Fate.SERVED


def test_only_stacks_of_its_own_files_are_taken_away(make: Make, stage: Stage, file: Path) -> None:
    api = make(sources=[file.parent])
    api.apply(look_at(file), first=True, live=nothing)
    api.apply(look_at(written(file.with_name("more.yaml"), name="more")), first=True, live=nothing)
    stage.apply({"name": "b", "import_path": "b:app", "route_prefix": "/b"}, stack="by-hand")
    assert api.prune([file], frozenset({"shop"})) == ["more"]
    stage.do(until(lambda: "more" not in stage.plane.ledger.heads))
    assert {one["name"] for one in Client(stage.url, "secret").status()["stacks"]} == {"shop", "by-hand"}


@pytest.mark.parametrize("how", ["cancel", "complete"])
def test_an_apply_that_runs_can_be_given_up(make: Make, stage: Stage, file: Path, said: list[Said], how: str) -> None:
    api = make()
    api.apply(look_at(file), first=True, live=nothing)
    stage.hold()
    said.clear()
    (file.parent / "web.py").write_text("app = 2\n")
    look, done = look_at(file), []
    applying = threading.Thread(target=lambda: done.append(api.apply(look, first=False, live=nothing)))
    applying.start()
    stage.do(until(lambda: any(one.message == "replica" and one.data["state"] == "Starting" for one in said)))
    getattr(api, how)(look)
    stage.let_go()
    applying.join()
    assert done[0].result["outcome"] == "rolled_back"
    told = [one.message for one in said if one.kind == "cancelled"]
    assert told == (["interrupted: nothing was switched; what had been started is removed"] if how == "cancel" else [])
    api.cancel(look)  # nothing runs any more: nothing is said
    assert len([one for one in said if one.kind == "cancelled"]) == len(told)


def test_an_apply_that_is_just_being_sent_can_be_given_up(
    make: Make, stage: Stage, file: Path, said: list[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make()
    api.apply(look_at(file), first=True, live=nothing)
    stage.hold()
    (file.parent / "web.py").write_text("app = 2\n")
    look, begin = look_at(file), Client.begin

    def interrupted(*args: Any, **options: Any) -> str:
        operation = begin(*args, **options)
        api.cancel(look)  # nobody knows the operation yet
        return operation

    monkeypatch.setattr(Client, "begin", interrupted)
    assert api.apply(look, first=False, live=nothing).result["outcome"] == "rolled_back"
    assert [one.kind for one in said if one.kind == "cancelled"] == ["cancelled"]
    with pytest.raises(OperatorError, match="nothing had been sent"):
        api.apply(look, first=False, live=nothing)
    monkeypatch.undo()
    stage.let_go()
    assert api.apply(look_at(file), first=False, live=nothing).fate is Fate.SERVED


def test_where_nobody_answers_it_is_looked_for_anew(stage: Stage, file: Path, said: list[Said]) -> None:
    addresses = [f"http://127.0.0.1:{free_port()}", stage.url]
    api = ControlApi(lambda: Client(addresses.pop(0), "secret"), said.append)
    look = look_at(file)
    api.record(look, "drift", "nobody hears it")  # nothing was looked for yet, and nothing is for that
    with pytest.raises(OperatorError):
        api.current()
    with pytest.raises(Unreachable):
        api.apply(look, first=True, live=nothing)
    assert api.apply(look, first=True, live=nothing).fate is Fate.SERVED
    api.record(look, "drift", "x" * 5_000)
    (told,) = [one for one in api.current().recent_events(stack="shop") if one["kind"] == "drift"]
    assert told["message"] == "x" * 2_000 and told["data"]["file"] == str(file)


async def until(look: Callable[[], Any]) -> None:
    while not look():
        await asyncio.sleep(0.01)


def test_a_look_that_can_not_be_applied_is_recorded_for_nobody(make: Make, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    look: Look = look_at(broken)
    assert look.stack is None
    make().record(look, "drift", "it has no stack")
