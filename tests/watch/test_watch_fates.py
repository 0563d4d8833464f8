"""What becomes of a file that is wrong, that fails, that nobody can serve just now, or that another one contradicts."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from watching import SPEC, FakeServing, lay_out, watching

from serveconf.errors import AuthorError, OperatorError, Unreachable
from serveconf.watch import following, quarantine
from serveconf.watch.follower import FirstFailed, outcome_of_error
from serveconf.watch.gate import Gate
from serveconf.watch.memory import Fate, Memory, Outcome
from serveconf.watch.ports import FirstFailure


def specs(folder: Path, *names: str) -> None:
    lay_out(folder)
    (folder / "serve.yaml").unlink()
    for name in names:
        (folder / f"{name}.yaml").write_text(SPEC.format(name=name))


def test_a_broken_file_holds_up_no_other(tmp_path: Path) -> None:
    specs(tmp_path / "app", "a", "b")
    (tmp_path / "app" / "broken.yaml").write_text("name: [")
    with watching(tmp_path / "app") as watcher:
        watcher.until(lambda: len(watcher.serving.applied) == 2, "the others are applied")
        watcher.until(lambda: watcher.kinds("invalid"), "it is told")
        assert watcher.following is not None and not watcher.following.ready
        (tmp_path / "app" / "broken.yaml").write_text(SPEC.format(name="mended"))
        watcher.until(lambda: "mended" in watcher.serving.started, "it is applied once it is mended")
        watcher.until(lambda: watcher.following and watcher.following.ready, "now all is ready")
        (tmp_path / "app" / "a.yaml").write_text("name: a\ndeploymnts: []\n")
        (tmp_path / "app" / "new.yaml").write_text("- no spec\n")
        watcher.until(lambda: len(watcher.kinds("invalid")) == 3, "two more are wrong")
        assert watcher.following.ready  # what served goes on
        watcher.following.lost.add(tmp_path / "app" / "b.yaml")
        assert not watcher.following.ready


def test_applies_that_take_their_time_hold_up_no_other(tmp_path: Path) -> None:
    names = [f"slow{number}" for number in range(40)]  # asyncio has 32 threads at most where nobody asks for more
    specs(tmp_path, *names)
    serving = FakeServing()
    serving.hold.clear()
    with watching(tmp_path, serving=serving) as watcher:
        watcher.until(lambda: sorted(serving.started) == sorted(names), "all are begun")
        specs(tmp_path, "late")
        watcher.until(lambda: "late" in serving.started, "the last one is begun beside them")
        serving.hold.set()


def test_two_files_that_claim_one_stack_are_told_at_both_places_and_neither_is_applied(tmp_path: Path) -> None:
    specs(tmp_path / "app", "a", "b")
    (tmp_path / "app" / "b.yaml").write_text(SPEC.format(name="a"))
    with watching(tmp_path / "app") as watcher:
        watcher.until(lambda: len(watcher.kinds("invalid")) == 2, "it is told of both")
        assert watcher.rests() == []
        places = {str(said.error) for said in watcher.said if said.kind == "invalid"}
        assert any("b.yaml:1:" in place for place in places) and any("a.yaml:1:" in place for place in places)
        (tmp_path / "app" / "b.yaml").write_text(
            SPEC.format(name="b").replace("web:app'", "web:app', route_prefix: /x")
        )
        watcher.until(lambda: sorted(watcher.serving.started) == ["a", "b"], "both are applied")


def test_a_contradiction_is_told_once_at_each_place_and_so_is_its_end(tmp_path: Path) -> None:
    specs(tmp_path, "a")
    serving = FakeServing()
    with watching(tmp_path, serving=serving, drift_s=0.05) as watcher:
        for times in (1, 2):
            watcher.until(lambda: serving.applied == [("a", "one")], "it is applied")
            (tmp_path / "b.yaml").write_text(SPEC.format(name="a"))
            watcher.until(lambda times=times: len(watcher.kinds("invalid")) == 2 * times, "both are told")
            looked = serving.looked
            watcher.until(lambda looked=looked: serving.looked > looked + 3, "what serves is looked at")
            assert len(watcher.kinds("invalid")) == 2 * times
            (tmp_path / "b.yaml").unlink()
            watcher.until(lambda times=times: len(watcher.kinds("agreed")) == times, "the other one is as it was")
        assert serving.applied == [("a", "one")]


def test_a_file_that_is_broken_just_now_still_claims_what_it_serves(tmp_path: Path) -> None:
    specs(tmp_path, "a")
    with watching(tmp_path) as watcher:
        watcher.until(lambda: watcher.serving.applied == [("a", "one")], "it is applied")
        (tmp_path / "a.yaml").write_text("name: [")
        watcher.until(lambda: len(watcher.kinds("invalid")) == 1, "it is broken")
        (tmp_path / "b.yaml").write_text(SPEC.format(name="a"))
        watcher.until(lambda: len(watcher.kinds("invalid")) == 2, "the other one is told")
        assert watcher.rests() == [("a", "one")]
        (tmp_path / "a.yaml").write_text(SPEC.format(name="c"))
        watcher.until(lambda: sorted(watcher.serving.started) == ["a", "a", "c"], "each has a stack of its own")


def test_what_failed_is_tried_again_when_its_content_changes_and_not_before(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    serving = FakeServing()
    serving.fates["shop"] = Outcome(fate=Fate.REFUSED, message="it does not start")
    with watching(file, serving=serving) as watcher:
        watcher.until(lambda: watcher.kinds("quarantine"), "it is told")
        watcher.until(
            lambda: (
                serving.recorded
                == [("quarantine", "shop", "not tried again until a byte of it changes: it does not start")]
            ),
            "the cluster's log of events has it",
        )
        (file.parent / "web.py").touch()
        assert len(watcher.rests()) == 1
        (file.parent / "web.py").write_text("two")
        watcher.until(lambda: len(serving.applied) == 2, "the change is tried")
        del serving.fates["shop"]
        (file.parent / "web.py").write_text("one")  # as it was when it failed: refused was what came last
        watcher.until(lambda: serving.applied[-1] == ("shop", "one"), "an older content is tried, too")


def test_what_serves_is_said_again_when_it_comes_back_after_something_that_was_refused(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    serving = FakeServing()
    with watching(file, serving=serving) as watcher:
        watcher.until(lambda: watcher.kinds("served"), "the first content serves")
        before = (file.parent / "web.py").read_text()
        serving.fates["shop"] = Outcome(fate=Fate.REFUSED, message="it does not start")
        (file.parent / "web.py").write_text("two")
        watcher.until(lambda: watcher.kinds("quarantine"), "the second does not")
        del serving.fates["shop"]
        (file.parent / "web.py").write_text(before)
        watcher.until(lambda: len(watcher.kinds("served")) == 2, "whoever looks hears that all is well again")
        assert len(watcher.rests()) == 3  # once


def test_what_the_cluster_stood_in_the_way_of_is_tried_again_by_itself(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    serving = FakeServing()
    serving.fates["shop"] = serving.refused_before["shop"] = Unreachable("nobody answers")
    with watching(file, serving=serving) as watcher:
        watcher.until(lambda: len(serving.applied) >= 2, "it is tried again")
        assert ("error", "what is served is unchanged") in watcher.kinds()
        assert len(watcher.kinds("error")) == 1  # said once
        del serving.fates["shop"], serving.refused_before["shop"]
        watcher.until(lambda: watcher.kinds("served"), "it is served once that has passed")


def test_a_pin_is_said_once_and_ends_by_itself(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    serving = FakeServing()
    with watching(file, serving=serving, drift_s=0.1) as watcher:
        watcher.until(lambda: serving.applied, "the first apply")
        serving.fates["shop"] = Outcome(fate=Fate.PINNED, message="pinned to revision 1")
        serving.pinned.add("shop")
        serving.drifts["shop"] = "pinned to revision 1"
        watcher.until(lambda: len(serving.applied) >= 3, "it is looked at again")
        assert watcher.kinds("pinned") == [("pinned", "pinned to revision 1: waiting for 'serveconf resume'")]
        assert not watcher.kinds("drift")
        del serving.fates["shop"]
        watcher.until(lambda: len(watcher.kinds("served")) == 2, "it is as the file says again")


@pytest.mark.parametrize("heal", [True, False])
def test_what_was_changed_behind_its_back_is_undone_or_told(tmp_path: Path, heal: bool) -> None:
    file = lay_out(tmp_path / "app")
    serving = FakeServing()
    with watching(file, serving=serving, drift_s=0.1, self_heal=heal) as watcher:
        watcher.until(lambda: watcher.kinds("served"), "the first apply")
        serving.drifts["shop"] = "revision 2 by somebody serves instead"
        watcher.until(lambda: watcher.kinds("drift"), "it is told")
        if heal:
            watcher.until(lambda: len(serving.recorded) == 2, "it is undone")
        assert len(watcher.rests(3.0)) == (2 if heal else 1)
        assert len(watcher.kinds("drift")) == 1
        said = "revision 2 by somebody serves instead"
        assert serving.recorded == (
            [
                ("drift", "shop", f"{said}; it is brought back"),
                ("heal", "shop", f"brought back to what serve.yaml says: {said}"),
            ]
            if heal
            else [("drift", "shop", f"{said}; left as it is")]
        )


def test_a_file_that_disappears_leaves_its_stack_unless_it_is_to_be_pruned(tmp_path: Path) -> None:
    for prune in (False, True):
        folder = tmp_path / str(prune)
        specs(folder, "a", "b")
        serving = FakeServing()
        with watching(folder, serving=serving, prune=prune) as watcher:
            watcher.until(lambda serving=serving: len(serving.there) == 2, "both are applied")
            (folder / "b.yaml").unlink()
            kind = "pruned" if prune else "gone"
            watcher.until(lambda watcher=watcher, kind=kind: watcher.kinds(kind), "it is told")
            assert serving.pruned == (["b"] if prune else [])


def test_files_that_go_together_are_waited_for_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "GONE_S", 1.0)
    names = [f"s{number:02}" for number in range(20)]
    specs(tmp_path, *names)
    with watching(tmp_path) as watcher:
        watcher.until(lambda: len(watcher.serving.applied) == len(names), "all are applied")
        for name in names:
            (tmp_path / f"{name}.yaml").unlink()
        watcher.until(lambda: len(watcher.kinds("gone")) == len(names), "it is told of each")
        (tmp_path / "s00.yaml").write_text(SPEC.format(name="s00"))
        watcher.until(lambda: watcher.serving.started.count("s00") == 2, "one that comes back is followed on")


def test_a_fault_of_ours_in_one_files_task_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serveconf.watch.following.AGAIN_S", 0.1)
    specs(tmp_path / "app", "a", "b")
    serving = FakeServing()
    serving.fates["a"] = RuntimeError("a fault")  # type: ignore[assignment]
    apply = serving.apply

    def failing(look: object, **how: object) -> Outcome:
        outcome = apply(look, **how)  # type: ignore[arg-type]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    serving.apply = failing  # type: ignore[method-assign]
    with watching(tmp_path / "app", serving=serving) as watcher:
        watcher.until(lambda: watcher.kinds("error"), "it is told")
        watcher.until(lambda: "b" in serving.started, "the other is applied")
        del serving.fates["a"]
        watcher.until(lambda: "a" in serving.there, "and so is this one, later")


@pytest.mark.parametrize(
    ("when", "fate", "ends"),
    [
        (FirstFailure.ENDS, Outcome(fate=Fate.REFUSED), True),
        (FirstFailure.ENDS, Unreachable("nobody answers"), True),
        (FirstFailure.ENDS_WHERE_WRONG, AuthorError("it is wrong"), True),
        (FirstFailure.ENDS_WHERE_WRONG, Unreachable("nobody answers"), False),
        (FirstFailure.GOES_ON, Outcome(fate=Fate.REFUSED), False),
    ],
)
def test_a_first_failure_ends_it_where_that_is_wanted(
    tmp_path: Path, when: FirstFailure, fate: Outcome | AuthorError, ends: bool
) -> None:
    serving = FakeServing()
    serving.fates["shop"] = fate
    with watching(lay_out(tmp_path / "app"), serving=serving, first_failure=when) as watcher:
        watcher.until(lambda: serving.applied, "it is tried")
        if ends:
            watcher.until(lambda: isinstance(watcher.error, FirstFailed), "it has ended")
        else:
            watcher.rests(0.5)
            assert watcher.error is None


def test_pauses_grow_and_end_with_success() -> None:
    memory, pauses = Memory(), []
    for _ in range(8):
        memory = memory.after("k", Fate.STUCK, 100.0)
        pauses.append(memory.due_in("k", 100.0))
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert memory.due_in("other", 100.0) == 0.0
    assert memory.after("k", Fate.SERVED, 100.0).due_in("k", 100.0) is None


def test_where_nobody_answers_it_is_looked_for_who_does_every_few_seconds() -> None:
    away, other = outcome_of_error(Unreachable("nobody answers")), outcome_of_error(OperatorError("no room"))
    assert (away.fate, other.fate) == (Fate.STUCK, Fate.STUCK)
    pauses = []
    for outcome in (away, other):
        memory = Memory()
        for _ in range(5):
            memory = memory.after("k", outcome.fate, 100.0, longest_s=outcome.longest_s)
        pauses.append(memory.due_in("k", 100.0))
    assert pauses == [4, 16]


def test_quarantine_outlives_the_watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path))
    quarantine.refuse("http://one", "shop", "key", "it does not start")
    found = quarantine.refused("http://one", "shop")
    assert found is not None and (found.key, found.why) == ("key", "it does not start")
    assert quarantine.refused("http://two", "shop") is None
    quarantine.release("http://one", "shop")
    assert quarantine.refused("http://one", "shop") is None
    (tmp_path / "quarantine.json").write_text("{half")
    assert quarantine.refused("http://one", "shop") is None


def test_files_are_not_changed_while_somebody_reads_them() -> None:
    async def main() -> list[str]:
        gate, order = Gate(), []

        async def read(name: str, hold: float) -> None:
            async with gate.reading():
                order.append(f"+{name}")
                await asyncio.sleep(hold)
                order.append(f"-{name}")

        async def change() -> None:
            async with gate.changing():
                order.append("change")

        first, second = asyncio.create_task(read("a", 0.05)), asyncio.create_task(read("b", 0.02))
        await asyncio.sleep(0.01)
        changing = asyncio.create_task(change())
        await asyncio.sleep(0.01)
        await asyncio.gather(first, second, changing, read("c", 0))
        return order

    assert asyncio.run(main()) == ["+a", "+b", "-b", "-a", "change", "+c", "-c"]


def test_quarantine_holds_what_many_threads_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path))

    def work(stack: str) -> None:
        for number in range(60):
            quarantine.refuse("http://a", stack, str(number), "why")

    threads = [threading.Thread(target=work, args=(f"s{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        found = quarantine.refused("http://a", f"s{number}")
        assert found is not None
        assert found.key == "59"
    assert (tmp_path / "quarantine.json").stat().st_mode & 0o777 == 0o600
