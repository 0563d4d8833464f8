"""What the client makes of what it hears: each status its kind of error, nothing strange taken for an answer, no token told to
a stranger.
"""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import Odd, lines

from serveconf import client as client_module
from serveconf.backup_file import Backup, SavedStack
from serveconf.client import Client, CodeRejected, author
from serveconf.credentials import prove
from serveconf.errors import (
    AuthorError,
    Conflict,
    InternalError,
    NotFound,
    OperatorError,
    ServeconfError,
    Unauthorized,
    Unreachable,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ERRORS = st.fixed_dictionaries({"code": JSON, "message": JSON}, optional={"hint": JSON, "problems": JSON})


@pytest.fixture
def odd() -> Iterator[Odd]:
    odd = Odd()
    yield odd
    odd.close()


@pytest.fixture
def client(odd: Odd) -> Client:
    return Client(odd.url, "secret")


def says(code: str = "x", message: str = "no", hint: str | None = "do", **more: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "hint": hint, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, OperatorError),
        (401, Unauthorized),
        (404, NotFound),
        (409, Conflict),
        (412, Conflict),
        (422, AuthorError),
        (500, OperatorError),
        (507, OperatorError),
    ],
)
def test_each_status_is_its_kind_of_error_with_the_code_and_the_words_of_the_answer(
    odd: Odd, client: Client, status: int, kind: type[ServeconfError]
) -> None:
    odd.said["GET /routes"] = [(status, says("some_code", "that is so", "do this"))]
    with pytest.raises(ServeconfError) as caught:
        client.routes()
    assert type(caught.value) is kind
    assert caught.value.as_json() == {"code": "some_code", "message": "that is so", "hint": "do this"}


def test_code_that_is_refused_brings_its_problems(odd: Odd, client: Client) -> None:
    problem = {"deployment": "shop", "traceback": "File app.py", "message": "no module"}
    odd.said["POST /stacks/shop/plan"] = [(422, says(problems=[problem]))]
    with pytest.raises(CodeRejected) as caught:
        client.plan("shop", {})
    assert caught.value.problems == [problem]
    assert (caught.value.code, caught.value.hint) == ("code_failed", None)


@given(
    said=JSON | st.fixed_dictionaries({"error": JSON | ERRORS}),
    status=st.sampled_from([400, 401, 404, 409, 412, 422, 500, 503]),
)
def test_whatever_an_error_s_body_is_it_becomes_one_of_our_errors(said: Any, status: int) -> None:
    from serveconf.http_calls import Answer

    error = client_module._error(Answer(status=status, content=json.dumps(said).encode()))
    assert isinstance(error, ServeconfError)
    assert all(isinstance(value, str | None) for value in error.as_json().values())
    assert not isinstance(error, CodeRejected) or all(isinstance(problem, dict) for problem in error.problems)


def test_an_answer_of_a_stranger_is_shown_in_part_and_says_who_may_have_answered(odd: Odd, client: Client) -> None:
    odd.said["GET /routes"] = [(502, b"\xff<html>" + b"x" * 10_000)]
    with pytest.raises(InternalError) as caught:
        client.routes()
    assert caught.value.message.startswith("the control API answered 502: �<html>xxx")
    assert len(caught.value.message) < 400
    assert "stands between here and the controller" in str(caught.value.hint)


@pytest.mark.parametrize("body", [b"<html>", b"\xff\xfe", b"{", b"NaN,"])
def test_a_good_status_with_what_is_no_json_is_no_answer(odd: Odd, client: Client, body: bytes) -> None:
    odd.said["GET /routes"] = [(200, body)]
    with pytest.raises(InternalError, match="the control API answered 200"):
        client.routes()


def test_an_empty_answer_says_nothing_and_is_one(odd: Odd, client: Client) -> None:
    odd.said["POST /stacks/shop/resume"] = [(204, b"")]
    client.resume("shop")
    assert odd.asked == ["POST /stacks/shop/resume"]


@pytest.mark.parametrize("bad", [b"no json\n", b"\n", b'{"event": "phase"\n'])
def test_a_line_that_is_no_event_ends_the_events_and_is_shown(odd: Odd, client: Client, bad: bytes) -> None:
    odd.said["GET /operations/7/events"] = [lines({"event": "phase"}, bad)]
    heard = client.events("7")
    assert next(heard) == {"event": "phase"}
    with pytest.raises(InternalError, match="told what is no JSON"):
        next(heard)


def test_a_line_without_an_end_is_heard_too(odd: Odd, client: Client) -> None:
    odd.said["GET /operations/7/events"] = [lines({"event": "phase"}, b'{"event": "result"}')]
    assert [event["event"] for event in client.events("7")] == ["phase", "result"]


def test_events_of_an_operation_that_nobody_knows_are_an_error_and_not_none(odd: Odd, client: Client) -> None:
    odd.said["GET /operations/7/events"] = [(404, says("not_found", "no operation 7"))]
    with pytest.raises(NotFound, match="no operation 7"):
        list(client.events("7"))


def test_a_revision_that_is_expected_goes_with_the_request_and_zero_is_one(odd: Odd, client: Client) -> None:
    odd.said["POST /stacks/shop/apply"] = [(200, b'{"operation": 7}')]
    assert client.begin("shop", "apply", {"spec": {}}) == "7"
    assert client.begin("shop", "apply", {"spec": {}}, base=0) == "7"
    assert [headers.get("if-match") for _, headers, _ in odd.heard] == [None, "0"]
    assert json.loads(odd.heard[0][2]) == {"spec": {}}


def test_who_calls_is_told_whatever_letters_the_name_has(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "zoë\r\nx: 1")
    monkeypatch.setattr(socket, "gethostname", lambda: "höst")
    odd.said["GET /routes"] = [(200, b"{}")]
    Client(odd.url, "secret").routes()
    _, headers, _ = odd.heard[0]
    assert headers["x-serveconf-author"] == quote("zoë\r\nx: 1@höst", safe="@")
    assert "x" not in headers


def test_an_id_without_a_name_is_somebody_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert author() == f"unknown@{socket.gethostname()}"


def test_what_answers_is_asked_without_the_token_and_proves_that_it_knows_it(odd: Odd) -> None:
    client, stranger = Client(odd.url, "secret"), Client(odd.url, "another")
    assert client.healthy() and stranger.healthy()
    assert (client.proved, stranger.proved) == (True, False)
    assert all("authorization" not in headers for _, headers, _ in odd.heard)
    challenges = [query["challenge"] for query, _, _ in odd.heard]
    assert challenges[0] != challenges[1]


def test_a_proof_of_yesterday_proves_nothing(odd: Odd, client: Client) -> None:
    odd.health = {"service": "serveconf", "proofs": [prove("secret", "yesterday"), prove("secret", "")]}
    assert client.healthy()
    assert not client.proved


@pytest.mark.parametrize(
    "said",
    [
        [],
        "serveconf",
        7,
        {"service": "another"},
        {"service": "serveconf", "proofs": None},
        {"service": "serveconf", "proofs": 7},
        {"service": "serveconf", "proofs": ["\ud800"]},
    ],
)
def test_what_is_no_controller_is_none_and_proves_nothing(odd: Odd, client: Client, said: Any) -> None:
    odd.health = said
    assert not client.healthy()
    assert (client.proved, client.silent) == (False, False)


def test_versions_of_a_strange_type_were_not_said(odd: Odd, client: Client) -> None:
    odd.health = {"service": "serveconf", "version": 3, "api": "1", "oldest_api": None, "proofs": []}
    assert client.healthy()
    assert (client.speaker.version, client.speaker.api, client.speaker.oldest_api) == ("", 0, 0)


def test_who_listens_and_says_nothing_is_silent_and_nobody_is_not(free_port: int) -> None:
    client = Client(f"http://127.0.0.1:{free_port}", "secret")
    assert (client.healthy(0.05), client.silent) == (False, False)
    with socket.create_server(("127.0.0.1", free_port)):
        assert (client.healthy(0.05), client.silent) == (False, True)
    assert (client.healthy(0.05), client.silent) == (False, False)


def test_a_controller_that_dies_of_what_it_was_asked_has_heard_it(
    odd: Odd, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(handler: BaseHTTPRequestHandler) -> None:
        odd.health = {"service": "gone"}
        handler.close_connection = True

    odd.said["POST /shutdown"] = [dies]
    odd.said["POST /upgrade/controller"] = [dies]
    client.upgrade_controller("2.0")
    client.shutdown()
    assert odd.asked == ["POST /upgrade/controller", "POST /shutdown"]
    assert json.loads(odd.heard[0][2]) == {"version": "2.0"}


def test_one_that_was_not_there_has_heard_nothing(free_port: int) -> None:
    client = Client(f"http://127.0.0.1:{free_port}", "secret")
    for asked in (client.shutdown, lambda: client.upgrade_controller("2.0")):
        with pytest.raises(Unreachable, match=f"the control API at http://127.0.0.1:{free_port} does not answer"):
            asked()


def test_a_shutdown_that_is_refused_is_told(odd: Odd, client: Client) -> None:
    odd.said["POST /shutdown"] = [(401, says("unauthorized", "a read-only token"))]
    with pytest.raises(Unauthorized, match="a read-only token"):
        client.shutdown()


def test_a_controller_that_lingers_is_waited_for_and_not_for_ever(
    odd: Odd, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "GONE_S", 0.1)
    odd.said["POST /shutdown"] = [(200, b"{}")]
    client.shutdown()
    assert len(odd.heard) > 2  # it was asked again whether it is there


def test_a_new_token_is_what_the_client_goes_on_with(odd: Odd, client: Client) -> None:
    odd.said["POST /token"] = [(200, b'{"token": "fresh"}')]
    odd.said["GET /routes"] = [(200, b"{}")]
    assert client.rotate_token() == "fresh"
    client.routes()
    assert [headers["authorization"] for _, headers, _ in odd.heard] == ["Bearer secret", "Bearer fresh"]
    client.healthy()
    assert not client.proved  # what is there proves the old one


def test_what_a_controller_of_before_does_not_know_of_is_nothing_and_other_errors_are_told(
    odd: Odd, client: Client
) -> None:
    odd.said["GET /stacks/shop/data"] = [
        (404, says("not_found")),
        (200, b'{"paths": ["a.db", "a.db"]}'),
        (500, says("internal", "a fault")),
    ]
    assert client.data("shop") == frozenset()
    assert client.data("shop") == {"a.db"}
    with pytest.raises(OperatorError, match="a fault"):
        client.data("shop")


def test_a_spec_that_is_not_read_there_is_none(odd: Odd, client: Client) -> None:
    odd.said["POST /spec/read"] = [(200, b'{"spec": null}'), (200, b'{"spec": {"name": "a"}, "masks": {}}')]
    assert client.read_spec("name: a", {"X": "1"}) is None
    assert client.read_spec("name: ä\n", {}) == {"spec": {"name": "a"}, "masks": {}}
    assert json.loads(odd.heard[1][2]) == {"text": "name: ä\n", "variables": {}}


def test_live_data_come_by_their_kind_and_what_else_is_said_is_passed_over(odd: Odd, client: Client) -> None:
    told = (
        b': hello\nevent: status\ndata: {"stacks": []}\n\nid: 3\nretry: 10\nevent: points\ndata: [1]\n\ndata: [2]\n\n'
    )
    odd.said["GET /live"] = [lines(told)]
    assert list(client.live()) == [("status", {"stacks": []}), ("points", [1]), ("points", [2])]


def test_only_what_is_given_is_asked_for(odd: Odd, client: Client) -> None:
    odd.said["GET /events"] = [(200, b"[]")]
    odd.said["GET /status"] = [(200, b"{}")]
    client.recent_events()
    client.recent_events(stack="a b", since="2026-01-01T00:00:00+01:00")
    client.status()
    client.status(load=False)
    assert [query for query, _, _ in odd.heard] == [
        {},
        {"stack": ["a b"], "since": ["2026-01-01T00:00:00+01:00"]},
        {},
        {"load": ["false"]},
    ]


def test_a_backup_comes_whole_or_not_at_all(odd: Odd, client: Client) -> None:
    whole = Backup(serveconf="1", stacks=(SavedStack(name="shop", current=1, revisions={1: b"r"}),), code={"d": b"c"})
    data = msgspec.msgpack.encode(whole)
    odd.said["POST /backup"] = [(200, data), (200, data[:-1]), (200, b"<html>"), (507, says("disk_full", "no space"))]
    assert client.backup() == whole
    for _ in range(2):
        with pytest.raises(InternalError, match="the control API answered 200"):
            client.backup()
    with pytest.raises(OperatorError, match="no space") as caught:
        client.backup()
    assert caught.value.code == "disk_full"


def test_what_is_restored_is_what_was_saved(odd: Odd, client: Client) -> None:
    saved = SavedStack(name="shop", current=3, pinned=True, revisions={3: b"\x00\xff"}, secret=True)
    odd.said["POST /stacks/shop/restore"] = [(200, b'{"operation": "9"}')]
    assert client.restore(saved, replaces=True) == "9"
    query, _, body = odd.heard[0]
    assert query == {"replace": ["true"]}
    assert msgspec.msgpack.decode(body, type=SavedStack) == saved


@pytest.mark.parametrize(
    ("told", "hinted"),
    [
        (says("bad_request", "unknown key"), True),
        (says("not_found", "POST /api/v1/token: Not Found"), True),
        (says("not_found", "no such stack"), False),
    ],
)
def test_what_another_version_does_not_know_is_said_to_be_that(
    odd: Odd, client: Client, told: bytes, hinted: bool
) -> None:
    odd.version = "0.0.1"
    odd.said["POST /token"] = [(404, told)]
    for asked_before in (False, True):
        with pytest.raises(NotFound) as caught:
            client.rotate_token()
        assert (str(caught.value.hint).startswith("the controller runs serveconf 0.0.1")) == (hinted and asked_before)
        assert client.healthy()


def test_it_is_waited_for_while_it_is_away_and_no_longer_than_was_said(odd: Odd, free_port: int) -> None:
    assert Client(odd.url, "secret").comes_back(0)
    assert not Client(f"http://127.0.0.1:{free_port}", "secret").comes_back(0)
