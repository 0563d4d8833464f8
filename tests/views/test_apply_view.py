"""What an apply shows while it runs and when it ends."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pytest

from serveconf.cli.apply_view import ApplyView
from serveconf.cli.result_view import render_result

RECEIPT = {
    "requests": 812,
    "failed": 0,
    "retried": 0,
    "max_gap_ms": 12.3,
    "streams_kept": 0,
    "streams_closed": 0,
    "duration_s": 2.13,
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def replica(state: str, seconds: float = 0, **more: Any) -> dict[str, Any]:
    return {"event": "replica", "deployment": "cart", "replica": "cart-1", "state": state, "seconds": seconds, **more}


def result(outcome: str = "applied", **more: Any) -> dict[str, Any]:
    actions = [{"action": "create"}, {"action": "roll"}]
    return {
        "event": "result",
        "stack": "shop",
        "revision": 3,
        "outcome": outcome,
        "actions": actions,
        "receipt": RECEIPT,
        "problems": [],
    } | more


def shown(events: Iterable[dict[str, Any]], *, live: bool = False) -> str:
    stream = io.StringIO()
    with ApplyView(stream, live=live, clock=Clock()) as view:
        for event in events:
            view.handle(event)
    return stream.getvalue()


def test_away_from_a_terminal_every_step_is_one_line() -> None:
    text = shown(
        [
            {"event": "phase", "phase": "starting", "message": "revision 3"},
            replica("Starting"),
            {"event": "wait", "message": "another apply is running"},
            replica("Ready", 1.2),
            {"event": "from the future"},
            result(),
        ]
    )
    assert text == (
        "[   0.0 s] starting: revision 3\n"
        "[   0.0 s] cart: cart-1 Starting\n"
        "[   0.0 s] waiting: another apply is running\n"
        "[   0.0 s] cart: cart-1 Ready (1.2 s)\n"
        "Applied revision 3 of stack shop in 2.1 s: 1 created, 1 rolled; 812 requests, 0 failed, longest gap 12 ms.\n"
    )


def test_the_changing_lines_say_what_is_waited_for_and_how_long() -> None:
    clock = Clock()
    view = ApplyView(io.StringIO(), live=True, clock=clock)
    view.handle({"event": "phase", "phase": "starting", "message": "revision 3"})
    view.handle(replica("Starting", 0.5))
    view.handle(replica("Ready", replica="cart-2"))
    clock.now += 2
    assert view.lines() == [
        "starting 2.0 s  revision 3",
        "  cart  1 Starting, 1 Ready",
        "  waiting for cart-1 2.5 s",
    ]


def test_many_replicas_do_not_fill_the_terminal() -> None:
    view = ApplyView(io.StringIO(), live=True, clock=Clock())
    for number in range(50):
        view.handle(replica("Starting", replica=f"cart-{number}"))
    assert len(view.lines()) < 12
    assert view.lines()[-1] == "  and for 44 more replicas"


def test_a_terminal_is_left_with_the_result_as_its_last_line() -> None:
    text = shown([{"event": "phase", "phase": "starting"}, replica("Ready"), result()], live=True)
    assert text.rstrip().splitlines()[-1].startswith("Applied revision 3 of stack shop")


def test_failed_code_shows_its_deployment_and_the_users_traceback() -> None:
    traceback = 'Traceback (most recent call last):\n  File "shop/cart.py", line 3\nValueError: no'
    problem = {
        "file": "",
        "line": 0,
        "column": 0,
        "path": "deployments[0].import_path",
        "message": "ValueError: no",
        "code": "code_failed",
        "severity": "error",
        "hint": "mend it",
        "deployment": "cart",
        "traceback": traceback,
    }
    assert shown([result("rolled_back", problems=[problem], receipt={})]) == (
        "error: deployment 'cart': ValueError: no [code_failed]\n"
        "    Traceback (most recent call last):\n"
        '      File "shop/cart.py", line 3\n'
        "    ValueError: no\n"
        "  hint: mend it\n"
        "Not applied: stack shop is as it was.\n"
    )


def test_a_replica_that_fails_shows_its_traceback() -> None:
    text = shown([replica("Failed", message="ValueError: no\nTraceback:\n  line 3")])
    assert text == "cart: cart-1 Failed: ValueError: no\n    Traceback:\n      line 3\n"


def test_a_log_line_names_its_deployment_and_keeps_its_traceback() -> None:
    event = {"event": "log", "level": "warning", "message": "slow\x1b[2J", "deployment": "cart", "traceback": "T\n  x"}
    assert shown([event]) == "warning: cart: slow\\x1b[2J\n    T\n      x\n"


def test_a_plan_is_shown_where_there_is_one() -> None:
    action = {
        "action": "update",
        "deployment": "a",
        "cost": "none",
        "reason": "spec changed",
        "before": {},
        "after": {},
    }
    event = {"event": "plan", "stack": "shop", "base_revision": 1, "changed": True, "actions": [action]}
    assert "~ a  update settings  spec changed" in shown([event])
    assert shown([event | {"changed": False, "actions": []}]) == ""


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("unchanged", "No changes."),
        ("rolled_back", "Not applied"),
        ("failed", "not rolled back"),
        ("timeout", "Not done in time"),
        ("conflict", "Refused"),
    ],
)
def test_every_outcome_has_its_words(outcome: str, words: str) -> None:
    assert words in render_result(result(outcome))


def test_streams_are_counted_where_there_were_any() -> None:
    receipt = RECEIPT | {"requests": 0, "max_gap_ms": 0, "streams_kept": 2, "streams_closed": 1}
    assert render_result(result(receipt=receipt)).endswith("; 0 requests, 0 failed, 2 streams kept, 1 closed.")


def test_at_the_end_the_time_of_each_phase_is_told() -> None:
    clock, stream = Clock(), io.StringIO()
    with ApplyView(stream, clock=clock) as view:
        for phase, seconds in (("preflight", 0.8), ("starting", 2.1), ("draining", 0.01)):
            view.handle({"event": "phase", "phase": phase})
            clock.now += seconds
        view.handle(result())
    assert "Time: preflight 0.8 s, starting 2.1 s\nApplied" in stream.getvalue()


def test_the_result_says_what_both_versions_of_a_canary_answered() -> None:
    old, new = (
        {"requests": n, "failed": failed, "p95_ms": p95} for n, failed, p95 in ((900, 1, 12.34), (100, 0, 11.0))
    )
    receipt = {**result()["receipt"], "canary": [{"deployment": "shop", "old": old, "new": new}]}
    assert render_result(result(receipt=receipt)).splitlines()[0] == (
        "Canary of shop: the new version 100 requests, 0 failed, p95 11 ms; the old one 900 requests, 1 failed, p95 12.3 ms."
    )
