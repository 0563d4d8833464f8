"""What answers oddly: a controller that dies while it is followed, once and again, and what stands between it and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from odd import RESULT, Odd, lines
from typer.testing import CliRunner, Result

from serveconf import submit
from serveconf.cli.parser import app
from serveconf.client import Client
from serveconf.errors import InternalError, NotFound, Unauthorized, Unreachable

HTML = b"<html><body>Please sign in</body></html>"
PHASE = {"event": "phase", "phase": "starting", "message": "revision 2 of stack shop"}


@pytest.fixture
def odd() -> Iterator[Odd]:
    odd = Odd()
    yield odd
    odd.close()


def followed(odd: Odd) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What comes of operation 7, and what was told meanwhile."""
    told: list[dict[str, Any]] = []
    return submit.follow(Client(odd.url, "secret"), "7", told.append), told


def run(odd: Odd, *words: str) -> Result:
    return CliRunner().invoke(app, ["--address", odd.url, "--token", "secret", *words])


def test_a_controller_that_dies_while_an_apply_is_followed_is_waited_for_each_time(odd: Odd) -> None:
    dying = lines(PHASE, dies=True)
    odd.said["GET /operations/7/events"] = [dying, dying, dying, lines(PHASE, RESULT)]
    result, told = followed(odd)
    assert result["outcome"] == "applied"
    away = [one for one in told if one.get("level") == "warning"]
    assert len(away) == 3 and "waiting for it to come back" in away[0]["message"]


def test_what_was_told_before_a_connection_broke_is_not_told_again_and_what_a_new_controller_says_is(odd: Odd) -> None:
    later = {**PHASE, "phase": "draining"}
    odd.said["GET /operations/7/events"] = [
        lines(PHASE, PHASE, dies=True),
        lines(PHASE, PHASE, later, dies=True),  # the same controller, from the beginning
        lines(later, PHASE, RESULT),  # another one
    ]
    _, told = followed(odd)
    assert [one["phase"] for one in told if one["event"] == "phase"] == [
        *("starting", "starting", "draining"),
        *("draining", "starting"),
    ]


def test_one_that_knows_of_no_such_apply_had_touched_nothing(odd: Odd) -> None:
    gone = {"error": {"code": "not_found", "message": "there is no operation '7'", "hint": None}}
    odd.said["GET /operations/7/events"] = [lines(PHASE, dies=True), (404, json.dumps(gone).encode())]
    result, _ = followed(odd)
    assert (result["outcome"], result["changed"], result["problems"][0]["code"]) == ("failed", False, "interrupted")
    odd.said["GET /operations/7/events"] = [(404, json.dumps(gone).encode())]
    with pytest.raises(NotFound):  # nobody has died: whoever asks has the wrong number
        followed(odd)


def test_one_that_does_not_come_back_is_given_up(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "RETURN_S", 0.0)
    odd.said["GET /operations/7/events"] = [lines(PHASE, dies=True)]
    odd.said["GET /operations/7/events"].append(lines(RESULT))

    def dead(client: Client, patience_s: float = 0.0) -> bool:
        return False

    monkeypatch.setattr(Client, "healthy", dead)
    with pytest.raises(Unreachable, match="does not answer"):
        followed(odd)
    assert odd.asked == ["GET /operations/7/events"]


def test_a_token_that_is_replaced_meanwhile_is_said_and_not_waited_for(odd: Odd) -> None:
    refused = {"error": {"code": "unauthorized", "message": "this token opens nothing", "hint": "ask for another"}}
    odd.said["GET /operations/7/events"] = [lines(PHASE, dies=True), (401, json.dumps(refused).encode())]
    with pytest.raises(Unauthorized, match="this token opens nothing"):
        followed(odd)


def test_events_that_end_without_a_result_are_no_success(odd: Odd) -> None:
    odd.said["GET /operations/7/events"] = [lines(PHASE)]
    with pytest.raises(InternalError, match="without a result"):
        followed(odd)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, HTML, "answered 200"),  # a gateway's page for whoever is not signed in
        (200, b'{"generation": 1', "answered 200"),
        (502, HTML, "answered 502: <html>"),
        (500, b'{"detail": "no"}', 'answered 500: {"detail": "no"}'),
        (500, b'{"error": "no"}', 'answered 500: {"error": "no"}'),
        (503, b"", "answered 503"),
        (400, b"[1]", "answered 400: [1]"),
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_an_answer_that_is_none_of_a_controllers_is_one_line_and_a_1(
    odd: Odd, status: int, body: bytes, said: str, form: str
) -> None:
    odd.said["GET /routes"] = [(status, body)]
    done = run(odd, "routes", "-o", form)
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1
    if form == "json":
        assert said in json.loads(done.stdout)["error"]["message"]
    else:
        assert done.stderr.startswith("error: the control API") and said in done.stderr


@pytest.mark.parametrize("words", [("events", "--follow"), ("logs", "--controller", "-f"), ("logs", "--controller")])
def test_a_line_that_is_none_ends_what_follows_with_one_line(odd: Odd, words: tuple[str, ...]) -> None:
    odd.said["GET /events"] = odd.said["GET /logs/controller"] = [lines(HTML + b"\n")]
    done = run(odd, *words)
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1
    assert done.stderr.startswith("error: the control API") and "<html>" in done.stderr


def test_a_backup_that_is_none_is_not_written(odd: Odd, tmp_path: Any) -> None:
    odd.said["POST /backup"] = [(200, HTML)]
    done = run(odd, "backup", str(tmp_path / "all.backup"))
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1
    assert done.stderr.startswith("error: the control API") and not (tmp_path / "all.backup").exists()


def test_a_controller_that_goes_while_a_number_is_waited_for_is_asked_again(odd: Odd) -> None:
    def dies(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    replica = {"id": "a", "state": "Ready"}
    status = {"stacks": [{"name": "shop", "deployments": [{"name": "web", "replicas": [replica, replica]}]}]}
    ready = (200, json.dumps(status).encode())
    odd.said["GET /status"] = [ready, dies, dies, ready]
    odd.said["POST /stacks/shop/deployments/web/scale"] = [(200, b'{"before": 1, "replicas": 2}')]
    done = run(odd, "scale", "web", "2", "-o", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ready"] == 2
