"""Commands that ask a controller and show what it says: events, tokens, the dashboard's address, ends of canaries; over a socket."""

from __future__ import annotations

import datetime
import json
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from odd import RESULT, Odd, lines
from typer.testing import CliRunner, Result

from serveconf.cli import events as events_module
from serveconf.cli.parser import app
from serveconf.client import Client
from serveconf.credentials import fingerprint, read_only, webhook_secret
from serveconf.home import Record, read_record, write_record

DONE = {key: value for key, value in RESULT.items() if key != "event"}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    odd = Odd()
    yield odd
    odd.close()


def run(odd: Odd, *words: str, token: str = "secret") -> Result:
    return CliRunner().invoke(app, ["--address", odd.url, "--token", token, *words])


def status(**stacks: list[str]) -> bytes:
    said = [{"name": name, "deployments": [{"name": one} for one in names]} for name, names in stacks.items()]
    return json.dumps({"stacks": said}).encode()


def event(message: str, second: int = 0, **more: Any) -> dict[str, Any]:
    time = f"2026-01-31T11:00:{second:02}+00:00"
    return {
        "time": time,
        "kind": "heal",
        "stack": "shop",
        "deployment": "web",
        "message": message,
        "data": {},
        "count": 1,
        **more,
    }


# Events


def test_events_are_lines_for_people_and_one_document_for_machines(odd: Odd) -> None:
    told = [event("replica web-1 died"), event("replica web-2 died", 1)]
    odd.said["GET /events"] = [(200, json.dumps(told).encode())]
    text = run(odd, "events", "--stack", "shop")
    assert [line.partition("shop/web  ")[2] for line in text.stdout.splitlines()] == [one["message"] for one in told]
    assert json.loads(run(odd, "events", "-o", "json").stdout) == told
    assert odd.heard[1][0] == {"stack": ["shop"]} and odd.heard[3][0] == {}


def test_no_events_is_said_to_people_and_is_an_empty_list_to_machines(odd: Odd) -> None:
    odd.said["GET /events"] = [(200, b"[]")]
    assert run(odd, "events").stdout == "No events.\n"
    assert json.loads(run(odd, "events", "-o", "json").stdout) == []


def test_a_span_is_sent_as_a_moment_of_the_past(odd: Odd) -> None:
    odd.said["GET /events"] = [(200, b"[]")]
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)
    assert run(odd, "events", "--since", "2h").exit_code == 0
    ((asked,),) = [query["since"] for query, _, _ in odd.heard if "since" in query]
    moment = datetime.datetime.fromisoformat(asked)
    assert before <= moment <= datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)


def test_what_is_no_time_is_refused_before_anybody_is_asked(odd: Odd) -> None:
    refused = run(odd, "events", "--since", "yesterday", "-o", "json")
    assert (refused.exit_code, json.loads(refused.stdout)["error"]["code"]) == (1, "since")
    assert odd.heard == []


def test_events_that_are_followed_are_one_object_a_line_until_nobody_comes_back(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "comes_back", lambda self, seconds: len(odd.asked) < 3)
    first, second, third = event("one"), event("two", 1), event("three", 1)
    odd.said["GET /events"] = [lines(first, second, dies=True), lines(second, third), lines(third)]
    done = run(odd, "events", "--follow", "-o", "json")
    *told, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["message"] for one in told] == ["one", "two", "three"]
    assert (done.exit_code, last["error"]["code"]) == (1, "unreachable")
    assert [query.get("since") for query, _, _ in odd.heard if "follow" in query] == [
        None,
        [second["time"]],
        [third["time"]],
    ]


@pytest.mark.parametrize("words", [("events", "--follow"), ("logs", "--proxy", "--follow")])
def test_an_error_is_one_line_where_every_answer_is_one(odd: Odd, words: tuple[str, ...]) -> None:
    refusal = {"error": {"code": "bad_request", "message": "no", "hint": None}}
    odd.said["GET /events"] = odd.said["GET /logs/proxies"] = [(400, json.dumps(refusal).encode())]
    done = run(odd, *words, "-o", "json")
    assert done.exit_code == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == [refusal]


def test_ctrl_c_is_how_following_ends(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    def followed(*args: Any) -> Iterator[dict[str, Any]]:
        yield event("one")
        raise KeyboardInterrupt

    monkeypatch.setattr(events_module, "followed", followed)
    done = run(odd, "events", "--follow")
    assert done.exit_code == 0
    assert done.stdout.endswith("shop/web  one\n")


# Tokens


def test_each_token_is_printed_alone_and_named_to_machines(odd: Odd) -> None:
    assert run(odd, "token").stdout == "secret\n"
    assert run(odd, "token", "--read-only").stdout == f"{read_only('secret')}\n"
    assert json.loads(run(odd, "token", "-o", "json").stdout) == {
        "token": "secret",
        "role": "write",
        "name": f"write:{fingerprint('secret')}",
    }
    looks = read_only("secret")
    assert json.loads(run(odd, "token", "--read-only", "-o", "json").stdout) == {
        "token": looks,
        "role": "read",
        "name": f"read:{fingerprint(looks)}",
    }


def test_a_webhook_has_a_secret_of_its_own(odd: Odd) -> None:
    secret = webhook_secret("secret", "shop")
    assert run(odd, "token", "--webhook", "shop").stdout == f"{secret}\n"
    told = json.loads(run(odd, "token", "--webhook", "shop", "-o", "json").stdout)
    assert told == {"secret": secret, "webhook": "shop", "name": f"webhook:{fingerprint(secret)}"}


def test_who_may_only_look_gets_no_secret_of_a_webhook(odd: Odd) -> None:
    looks = read_only("secret")
    odd.health = {"service": "serveconf", "proofs": []}
    refused = run(odd, "token", "--webhook", "shop", token=looks)
    assert refused.exit_code == 1 and "wh_" not in refused.stdout


def test_a_rotated_token_is_what_this_machine_goes_on_with(odd: Odd) -> None:
    odd.said["POST /token"] = [(200, b'{"token": "fresh"}')]
    write_record(Record(address=odd.url, token="secret"))
    done = run(odd, "token", "--rotate")
    assert done.stdout == "fresh\n"
    assert "What else knew the old one needs it" in done.stderr
    assert read_record() == Record(address=odd.url, token="fresh")


@pytest.mark.parametrize(
    "remembered", [Record(address="http://127.0.0.1:1", token="secret"), Record(token="another"), Record()]
)
def test_another_controller_s_token_stays_as_it_is_remembered(odd: Odd, remembered: Record) -> None:
    odd.said["POST /token"] = [(200, b'{"token": "fresh"}')]
    write_record(remembered)
    assert json.loads(run(odd, "token", "--rotate", "-o", "json").stdout)["token"] == "fresh"
    assert read_record() == remembered


def test_a_rotation_that_is_refused_changes_nothing_here(odd: Odd) -> None:
    refusal = {"error": {"code": "unauthorized", "message": "this token may only look", "hint": None}}
    odd.said["POST /token"] = [(401, json.dumps(refusal).encode())]
    write_record(Record(address=odd.url, token="secret"))
    done = run(odd, "token", "--rotate")
    assert (done.exit_code, done.stdout) == (1, "") and "this token may only look" in done.stderr
    assert read_record().token == "secret"


def test_the_dashboard_s_address_is_printed_and_opened_where_that_is_wanted(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    odd.said["POST /sign-in"] = [(200, b'{"address": "http://here/?once=1"}')]
    assert run(odd, "dashboard").stdout == "http://here/?once=1\n"
    assert opened == []
    assert json.loads(run(odd, "dashboard", "--open", "-o", "json").stdout) == {"address": "http://here/?once=1"}
    assert opened == ["http://here/?once=1"]


# Which stack is meant, and what becomes of it


def begun(odd: Odd, verb: str, result: dict[str, Any] = RESULT) -> None:
    odd.said[f"POST /stacks/shop/{verb}"] = [(200, b'{"operation": "7"}')]
    odd.said["GET /operations/7/events"] = [lines(result)]


@pytest.mark.parametrize("verb", ["promote", "abort"])
def test_the_only_stack_is_meant_and_of_several_the_one_with_the_deployment(odd: Odd, verb: str) -> None:
    begun(odd, verb)
    odd.said["GET /status"] = [
        (200, status(shop=["web"])),
        (200, status(other=["api"], shop=["web"])),
        (200, status(other=["web"], shop=["web"])),
    ]
    assert run(odd, verb, "-o", "json").exit_code == 0
    assert json.loads(run(odd, verb, "web", "-o", "json").stdout) == DONE
    bodies = [json.loads(body) for _, _, body in odd.heard if body]
    assert bodies == [{"deployment": None}, {"deployment": "web"}]
    refused = run(odd, verb, "web", "-o", "json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"] == {
        "code": "stack",
        "message": "there are 2 stacks: other, shop",
        "hint": "say which one is meant with --stack NAME",
    }
    assert run(odd, verb, "web", "--stack", "shop").exit_code == 0


def test_a_canary_that_is_aborted_is_what_was_wanted_and_any_other_failure_is_one(odd: Odd) -> None:
    aborted = {**RESULT, "outcome": "rolled_back", "problems": [problem("canary_aborted")]}
    odd.said["GET /status"] = [(200, status(shop=["web"]))]
    begun(odd, "abort", aborted)
    done = run(odd, "abort")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "Stack shop is as it was before." in done.stderr
    assert json.loads(run(odd, "abort", "-o", "json").stdout)["outcome"] == "rolled_back"
    begun(odd, "abort", {**aborted, "problems": [problem("start_failed")]})
    assert run(odd, "abort").exit_code == 3


def problem(code: str) -> dict[str, Any]:
    return {
        "file": "",
        "line": 0,
        "column": 0,
        "path": "",
        "message": "no",
        "code": code,
        "severity": "error",
        "hint": None,
        "deployment": "web",
        "traceback": "",
    }


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("applied", 0), ("unchanged", 0), ("rolled_back", 3), ("failed", 4), ("timeout", 5), ("conflict", 6)],
)
def test_each_outcome_has_its_exit_code_in_either_format(odd: Odd, outcome: str, code: int) -> None:
    problems = [] if code == 0 else [problem("start_failed")]
    begun(odd, "rollback", {**RESULT, "outcome": outcome, "problems": problems})
    odd.said["GET /status"] = [(200, status(shop=["web"]))]
    assert run(odd, "rollback", "3").exit_code == code
    done = run(odd, "rollback", "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)["outcome"]) == (code, outcome)
    revisions = [json.loads(body)["revision"] for _, _, body in odd.heard if body]
    assert revisions == [3, None]


def test_where_there_is_no_stack_the_default_one_is_asked_for_and_its_answer_told(odd: Odd) -> None:
    missing = {"error": {"code": "not_found", "message": "there is no stack 'default'", "hint": None}}
    odd.said["GET /status"] = [(200, status())]
    odd.said["POST /stacks/default/resume"] = [(404, json.dumps(missing).encode())]
    done = run(odd, "resume")
    assert done.exit_code == 1 and "there is no stack 'default'" in done.stderr


def test_a_pin_that_ends_is_said(odd: Odd) -> None:
    odd.said["GET /status"] = [(200, status(shop=["web"]))]
    odd.said["POST /stacks/shop/resume"] = [(200, b"{}")]
    assert run(odd, "resume").stdout == "Stack shop is pinned no longer.\n"
    assert json.loads(run(odd, "resume", "-o", "json").stdout) == {"stack": "shop", "pinned": False}
