"""What a watcher remembers of a stack, as laws: what is refused rests until it changes, what is stuck is tried less and less often."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.watch.memory import CLUSTER_CODES, LONGEST_S, PINNED_S, Fate, Memory, outcome_of

KEYS = st.sampled_from(["a", "b", "c"])
FATES = st.sampled_from(list(Fate))
TRIES = st.lists(st.tuples(KEYS, FATES, st.floats(0, 100)), max_size=12)


def lived(tries: list[tuple[str, Fate, float]]) -> tuple[Memory, float]:
    """What is remembered after these tries, one after the other, and the time by then."""
    memory, now = Memory(), 0.0
    for key, fate, pause in tries:
        now += pause
        memory = memory.after(key, fate, now)
    return memory, now


@given(TRIES, KEYS)
def test_what_serves_needs_no_other_try_and_forgets_what_was_before(
    tries: list[tuple[str, Fate, float]], key: str
) -> None:
    memory, now = lived(tries)
    served = memory.after(key, Fate.SERVED, now)
    assert served == Memory(served=key)
    assert served.due_in(key, now) is None
    assert all(served.due_in(other, now) == 0 for other in "abc" if other != key)


@given(TRIES, KEYS, st.floats(0, 1e6))
def test_what_was_refused_rests_for_ever_and_any_other_content_is_tried_at_once(
    tries: list[tuple[str, Fate, float]], key: str, later: float
) -> None:
    memory, now = lived(tries)
    refused = memory.after(key, Fate.REFUSED, now)
    assert refused.due_in(key, now + later) is None
    assert all(refused.due_in(other, now) == 0 for other in "abc" if other != key)


@given(TRIES, KEYS, st.integers(1, 30), st.floats(0.5, 1.5))
def test_what_is_stuck_is_tried_again_after_pauses_that_grow_to_a_limit(
    tries: list[tuple[str, Fate, float]], key: str, times: int, spread: float
) -> None:
    memory, now = lived(tries)
    memory = memory.after(key, Fate.SERVED, now)
    pauses = []
    for _ in range(times):
        memory = memory.after(key, Fate.STUCK, now, spread=spread)
        pause = memory.due_in(key, now)
        assert pause is not None
        pauses.append(pause / spread)
        now += pause
        assert memory.due_in(key, now) == pytest.approx(0, abs=1e-6)
    assert pauses == [pytest.approx(min(2.0**n, LONGEST_S)) for n in range(times)]


@given(TRIES, KEYS)
def test_an_edit_does_not_wait_for_what_was_stuck_before_it_and_begins_with_a_short_pause(
    tries: list[tuple[str, Fate, float]], key: str
) -> None:
    memory, now = lived(tries)
    for _ in range(10):
        memory = memory.after("old", Fate.STUCK, now)
    assert memory.due_in(key, now) in (0.0, None)  # None: it is in quarantine
    again = memory.after(key, Fate.STUCK, now)
    assert (again.failures, again.due_in(key, now)) == (1, pytest.approx(1.0)) or memory.refused == key


@given(TRIES, KEYS)
def test_a_pin_is_looked_at_steadily_until_it_is_gone(tries: list[tuple[str, Fate, float]], key: str) -> None:
    memory, now = lived([*tries, (key, Fate.SERVED, 0.0)])
    for _ in range(5):
        memory = memory.after(key, Fate.PINNED, now)
        assert memory.pinned
        assert memory.due_in(key, now) == pytest.approx(PINNED_S)
        now += PINNED_S
    assert not memory.after(key, Fate.SERVED, now).pinned
    assert not memory.after(key, Fate.STUCK, now).pinned
    assert not memory.after(key, Fate.REFUSED, now).pinned


def test_who_goes_back_from_what_was_refused_to_what_serves_says_so_once() -> None:
    memory = Memory().after("good", Fate.SERVED, 0).after("bad", Fate.REFUSED, 1)
    assert memory.due_in("good", 2) == 0
    assert memory.after("good", Fate.SERVED, 2).due_in("good", 3) is None
    assert memory.after("good", Fate.SERVED, 2).due_in("bad", 3) == 0  # the quarantine ended with it


@pytest.mark.parametrize("now", [-1e9, 0.0, 4.0, 1e9])
def test_a_clock_that_jumps_makes_no_pause_negative(now: float) -> None:
    memory = Memory().after("a", Fate.STUCK, 5.0)
    due = memory.due_in("a", now)
    assert due is not None and due >= 0


def result(outcome: str, *codes: str) -> dict[str, Any]:
    return {"outcome": outcome, "problems": [{"code": code, "message": f"said {code}"} for code in codes]}


@pytest.mark.parametrize(
    ("said", "fate", "message"),
    [
        (result("applied"), Fate.SERVED, "applied"),
        (result("unchanged"), Fate.SERVED, "unchanged"),
        (result("conflict", "pinned"), Fate.PINNED, "said pinned"),
        (result("conflict", "quarantined"), Fate.REFUSED, "said quarantined"),
        (result("conflict", "stale"), Fate.STUCK, "said stale"),
        (result("rolled_back", "start_failed"), Fate.REFUSED, "said start_failed"),
        (result("rolled_back", "does_not_fit"), Fate.STUCK, "said does_not_fit"),
        (result("rolled_back", "does_not_fit", "start_failed"), Fate.REFUSED, "said does_not_fit; said start_failed"),
        (result("failed", "store_silent"), Fate.STUCK, "said store_silent"),
        (result("failed"), Fate.REFUSED, "failed"),
        (result("timeout"), Fate.REFUSED, "timeout"),
    ],
)
def test_what_an_apply_came_to_says_whether_another_try_makes_sense(
    said: dict[str, Any], fate: Fate, message: str
) -> None:
    outcome = outcome_of(said)
    assert (outcome.fate, outcome.message, outcome.result) == (fate, message, said)


def test_every_code_that_may_pass_by_itself_is_one_that_is_explained() -> None:
    from serveconf.answers import ANSWERS

    assert CLUSTER_CODES - set(ANSWERS) == set()
