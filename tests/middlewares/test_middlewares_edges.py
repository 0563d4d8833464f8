"""The guards at their edges: what clients make up, apps that fail, laws that hold whatever comes."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import math
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import brotli
import httpx
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from stopped_clock import Clock

import serveconf.middlewares as guards
from serveconf.middlewares import addresses, breaker, keys, rate, tokens
from serveconf.middlewares.compress import choose_encoding
from serveconf.middlewares.keys import hash_key, hash_password

App = Callable[[Any, Any, Any], Awaitable[None]]
Messages = list[dict[str, Any]]
REAL_CLIENT = httpx.AsyncClient
SECRET = "s" * 32


def start(status: int = 200, *fields: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(fields), **more}


def piece(body: bytes = b"", more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


def saying(*messages: Any) -> App:
    """An app that sends those; one that is an exception is raised."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            await send(dict(message))

    return app


FINE = saying(start(), piece(b"fine"))


async def call(app: App, *received: dict[str, Any], kind: str = "http", **scope: Any) -> Messages:
    """What the server is told."""
    sent: Messages = []
    messages = iter(received or [{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    plain = {"type": kind, "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b""}
    await app({**plain, "headers": [], "client": ("10.0.0.1", 5), **scope}, receive, send)
    return sent


def ask(app: App, *received: dict[str, Any], **scope: Any) -> Messages:
    return asyncio.run(call(app, *received, **scope))


def status(app: App, *fields: tuple[bytes, bytes], **scope: Any) -> int:
    found: int = ask(app, headers=list(fields), **scope)[0]["status"]
    return found


GUARDS: dict[str, App] = {
    "ApiKey": guards.ApiKey(FINE, hash_key("k")),
    "BasicAuth": guards.BasicAuth(FINE, {"ann": hash_password("x")}),
    "CircuitBreaker": guards.CircuitBreaker(FINE),
    "Compress": guards.Compress(FINE),
    "IpAllowList": guards.IpAllowList(FINE, "192.0.2.1"),
    "JWT": guards.JWT(FINE, secret=SECRET),
    "RateLimit": guards.RateLimit(FINE, "1/day"),
    "Redirect": guards.Redirect(FINE, https=True),
    "RequestSizeAndTime": guards.RequestSizeAndTime(FINE, timeout_s=5),
    "Retry": guards.Retry(FINE),
    "SecurityHeaders": guards.SecurityHeaders(FINE),
    "StripPrefix": guards.StripPrefix(FINE, "/x"),
}
HANDSHAKES_REFUSED = {"ApiKey": 401, "BasicAuth": 401, "IpAllowList": 403, "JWT": 401, "RateLimit": 429}


def test_no_guard_touches_the_lifespan_of_its_app() -> None:
    assert set(GUARDS) == set(guards.__all__)
    for name, guard in GUARDS.items():
        for _ in range(2):
            assert ask(guard, kind="lifespan")[1]["body"] == b"fine", name


@pytest.mark.parametrize("name", sorted(GUARDS))
def test_a_handshake_is_refused_in_the_words_that_its_server_knows(name: str) -> None:
    guard = GUARDS[name]
    if name == "RateLimit":  # the one that it allows
        guard = guards.RateLimit(FINE, "1/day")
        ask(guard, kind="websocket")
    with_answer = ask(guard, kind="websocket", extensions={"websocket.http.response": {}})[0]
    without = ask(guard, kind="websocket", extensions={})[0]
    if name in HANDSHAKES_REFUSED:
        assert (with_answer["type"], with_answer["status"]) == (
            "websocket.http.response.start",
            HANDSHAKES_REFUSED[name],
        )
        assert (without["type"], without["code"]) == ("websocket.close", 1008)
    else:
        assert with_answer["status"] == without["status"] == 200


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: guards.ApiKey(FINE), "no keys"),
    (lambda: guards.ApiKey(FINE, ["sha256:zz"]), "no sha256:HEX"),
    (lambda: guards.ApiKey(FINE, ["sha256:" + "00" * 31]), "no sha256:HEX"),
    (lambda: guards.BasicAuth(FINE), "no users"),
    (lambda: guards.BasicAuth(FINE, {"ann": "plain"}), "no scrypt:SALT:HEX"),
    (lambda: guards.BasicAuth(FINE, {"ann": hash_password("x")}, realm='a "b"'), "realm"),
    (lambda: guards.BasicAuth(FINE, {"ann": hash_password("x")}, realm="a\r\nset-cookie: b"), "realm"),
    (lambda: guards.CircuitBreaker(FINE, max_error_rate=1), "max_error_rate"),
    (lambda: guards.CircuitBreaker(FINE, open_s=0), "more than 0"),
    (lambda: guards.Compress(FINE, encodings=["deflate", "gzip"]), "unknown encodings: deflate"),
    (lambda: guards.IpAllowList(FINE, ["10.0.0.0/33"]), "10.0.0.0/33"),
    (lambda: guards.JWT(FINE), "give one of"),
    (lambda: guards.JWT(FINE, secret=SECRET, jwks_url="https://a"), "give one of"),
    (lambda: guards.JWT(FINE, secret=SECRET, algorithms=["HS256", "NONE"]), "signs nothing"),
    (lambda: guards.Redirect(FINE), "give https"),
    (lambda: guards.Redirect(FINE, https=True, status=200), "no redirect"),
    (lambda: guards.RequestSizeAndTime(FINE), "give max_body_bytes"),
    (lambda: guards.Retry(FINE, attempts=0), "at least 1"),
    (lambda: guards.StripPrefix(FINE, "v1"), "start with '/'"),
    (lambda: guards.StripPrefix(FINE, "/"), "start with '/'"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_options_that_guard_nothing_are_refused_when_the_guard_is_built(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ApiKey and BasicAuth


def test_a_file_of_keys_says_which_line_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\na:{hash_key('k')}\nno-hash-here\n")
    with pytest.raises(ValueError, match=r"keys:4: must read name:hash"):
        guards.ApiKey(FINE, file=str(file))


def test_keys_of_arguments_and_file_count_together_and_the_files_name_wins(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"a:{hash_key('new')}\nb:{hash_key('other')}\n")
    guard = guards.ApiKey(FINE, {"a": hash_key("old"), "c": hash_key("third")}, file=str(file))
    found = {key: status(guard, (b"x-api-key", key.encode())) for key in ("old", "new", "other", "third", "")}
    assert found == {"old": 401, "new": 200, "other": 200, "third": 200, "": 401}


def test_only_the_first_of_two_keys_counts_and_none_of_them_reaches_the_app() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        await FINE(scope, receive, send)

    guard = guards.ApiKey(app, hash_key("k"))
    assert status(guard, (b"x-api-key", b"bad"), (b"x-api-key", b"k")) == 401
    assert status(guard, (b"x-api-key", b"k"), (b"x-api-key", b"bad")) == 200
    assert seen == [(b"x-api-key-name", b"1")]


def basic(text: bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Basic " + base64.b64encode(text)


def test_a_password_is_hashed_once_and_a_wrong_one_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = keys.check_password

    def noting(password: str, text: str) -> bool:
        hashed.append(password)
        return real(password, text)

    monkeypatch.setattr(keys, "check_password", noting)
    monkeypatch.setattr(keys, "_MEMORY", 1)
    guard = guards.BasicAuth(FINE, {"ann": hash_password("a"), "bob": hash_password("b")})
    asked = [b"ann:a", b"ann:a", b"ann:no", b"ann:no", b"nobody:x", b"bob:b", b"ann:a"]
    assert [status(guard, basic(one)) for one in asked] == [200, 200, 401, 401, 401, 200, 200]
    assert hashed == ["a", "no", "no", "x", "b", "a"]  # an unknown name costs as much; memory holds one


@pytest.mark.parametrize(
    "credentials",
    [
        (b"authorization", b"Basic"),
        (b"authorization", b"Basic \xff"),
        basic(b"\xff\xfe:x"),
        basic(b"ann:" + b"a" * 1025),
    ],
)
def test_credentials_that_are_none_are_refused_and_no_error(credentials: tuple[bytes, bytes]) -> None:
    assert status(guards.BasicAuth(FINE, {"ann": hash_password("a")}), credentials) == 401


def test_the_command_prints_hashes_that_let_in() -> None:
    script = (
        "import getpass, runpy; getpass.getpass = lambda prompt: 'k€y'; "
        "runpy.run_module('serveconf.middlewares.keys', run_name='__main__')"
    )
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    key, password = (line.partition(": ")[2].strip() for line in said.stdout.splitlines())
    assert status(guards.ApiKey(FINE, key), (b"x-api-key", "k€y".encode())) == 200
    assert status(guards.BasicAuth(FINE, {"ann": password}), basic("ann:k€y".encode())) == 200


# JWT


def part(value: Any) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def hs256(claims: Any, head: Any = {"alg": "HS256"}) -> tuple[bytes, bytes]:  # noqa: B006 it is only read
    text = part(head) + b"." + part(claims)
    return b"authorization", b"Bearer " + text + b"." + part(hmac.digest(SECRET.encode(), text, hashlib.sha256))


def jwt_guard() -> App:
    return guards.JWT(FINE, secret=SECRET, issuer="i", audience=["a", "b"], leeway_s=30)


def claims(**changed: Any) -> dict[str, Any]:
    return {"iss": "i", "aud": "a", "exp": time.time() + 600, **changed}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
FIELD = st.sampled_from(["alg", "crit", "b64", "kid", "typ", "jwk", "jku", "x5c", "enc", "zip", "cty"])


@given(head=ANYTHING | st.binary(max_size=20) | st.dictionaries(FIELD, ANYTHING | st.just(["b64"])), body=ANYTHING)
def test_whatever_somebody_makes_up_is_a_401_and_no_error(head: Any, body: Any) -> None:
    text = part(head if not isinstance(head, dict) else {"alg": "HS256", **head}) + b"." + part(body)
    for token in (text + b".AAAA", text, text + b"." + part(body) + b".AA.AA", b"..", b"." * 4):
        assert status(jwt_guard(), (b"authorization", b"Bearer " + token)) == 401


@pytest.mark.parametrize("critical", [1, None, {"b64": 1}])
def test_a_head_whose_critical_fields_are_no_list_is_refused(critical: Any) -> None:
    assert status(jwt_guard(), hs256(claims(), {"alg": "HS256", "crit": critical})) == 401


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 200),
        ({"aud": ["x", "b"]}, 200),
        ({"aud": []}, 401),
        ({"aud": {"a": 1}}, 401),
        ({"aud": 1}, 401),
        ({"iss": ["i"]}, 401),
        ({"exp": "9999999999"}, 401),
        ({"exp": True}, 401),
        ({"exp": 10**400}, 200),
        ({"nbf": 10**10}, 401),
        ({"iat": 10**10}, 401),
        ({"nbf": "now"}, 401),
    ],
)
def test_what_the_issuer_has_signed_is_still_looked_at(changed: dict[str, Any], expected: int) -> None:
    guard = jwt_guard()
    for _ in range(2):  # from memory it must not differ
        assert status(guard, hs256(claims(**changed))) == expected


def test_a_remembered_token_ends_when_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    guard = guards.JWT(FINE, secret=SECRET, leeway_s=5)
    token = hs256({"exp": int(now) + 10})
    assert status(guard, token) == 200
    monkeypatch.setattr(tokens, "time", lambda: now + 100)
    monkeypatch.setattr(time, "time", lambda: now + 100)
    assert status(guard, token) == 401


@pytest.mark.parametrize("subject", [1, "a\r\nx-admin: 1", "\ud800", "", None])
def test_a_subject_that_is_no_plain_text_is_not_handed_on(subject: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value for name, value in scope["headers"] if name == b"x-subject")
        await FINE(scope, receive, send)

    asked = hs256({"exp": time.time() + 60, "sub": subject})
    ask(guards.JWT(app, secret=SECRET), headers=[asked, (b"x-subject", b"root")])
    assert [value for value in seen if value] == []


def serving_keys(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], httpx.Response]) -> list[int]:
    fetched: list[int] = []

    async def issuer(request: httpx.Request) -> httpx.Response:
        fetched.append(1)
        await asyncio.sleep(0)
        return answer()

    monkeypatch.setattr(
        tokens.httpx, "AsyncClient", lambda **kw: REAL_CLIENT(transport=httpx.MockTransport(issuer), **kw)
    )
    return fetched


OCT = {"keys": [{"kty": "oct", "k": part(SECRET.encode()).decode(), "kid": "1"}]}
SIGNED = hs256({"exp": 10**11}, {"alg": "HS256", "kid": "1"})


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b'"x"', b"{}", b'{"keys": 1}', b'{"keys": [1]}', b'{"keys": [{}]}', b"<html>", b"\xff"]
)
def test_an_issuer_whose_answer_is_no_set_of_keys_leaves_the_old_one(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, content: bytes
) -> None:
    answers = [httpx.Response(200, json=OCT), httpx.Response(200, content=content)]
    serving_keys(monkeypatch, lambda: answers.pop(0))
    guard = guards.JWT(FINE, jwks_url="https://id.example/keys", algorithms=["HS256"], refresh_s=300)
    assert status(guard, SIGNED) == 200
    clock.now += 301
    assert status(guard, SIGNED) == 200
    assert answers == []


def test_who_comes_while_keys_are_fetched_waits_for_that_one_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = serving_keys(monkeypatch, lambda: httpx.Response(200, json=OCT))
    guard = guards.JWT(FINE, jwks_url="https://id.example/keys", algorithms=["HS256"])

    async def many() -> list[int]:
        found = await asyncio.gather(*(call(guard, headers=[SIGNED]) for _ in range(5)))
        return [messages[0]["status"] for messages in found]

    assert asyncio.run(many()) == [200] * 5
    assert len(fetched) == 1


# IpAllowList and RateLimit

NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/25", "::1", "2001:db8::/32", "fe80::/10", "0.0.0.0/0"]
ADDRESSES = [
    "10.1.2.3",
    "10.1.2.4",
    "10.9.0.1",
    "192.0.2.127",
    "192.0.2.128",
    "::1",
    "2001:db8::5",
    "fe80::1",
    "8.8.8.8",
]


@given(
    allow=st.lists(st.sampled_from(NETWORKS), max_size=4),
    deny=st.lists(st.sampled_from(NETWORKS), max_size=3),
    asked=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=6),
)
def test_who_may_enter_is_who_is_allowed_and_not_denied_the_first_time_and_later(
    allow: list[str], deny: list[str], asked: list[str]
) -> None:
    guard = guards.IpAllowList(FINE, allow, deny=deny)

    def within(address: str, networks: Sequence[str]) -> bool:
        return any(ip_address(address) in ip_network(one) for one in networks)

    for address in [*asked, *asked]:
        expected = 200 if within(address, allow) and not within(address, deny) else 403
        assert status(guard, client=(address, 1)) == expected


def test_addresses_with_a_zone_and_clients_without_an_address() -> None:
    guard = guards.IpAllowList(FINE, "fe80::/10")
    assert [status(guard, client=client) for client in (("fe80::1%eth0", 1), ("localhost", 1), None)] == [200, 403, 403]


def test_what_is_remembered_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_MEMORY", 3)
    guard = guards.IpAllowList(FINE, "10.0.0.0/31")
    found = [status(guard, client=(f"10.0.0.{number % 5}", 1)) for number in range(15)]
    assert found == [200, 200, 403, 403, 403] * 3
    assert len(guard._verdicts) <= 3


@given(
    amount=st.integers(1, 5),
    burst=st.none() | st.integers(1, 8),
    waits=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 20.0]), min_size=1, max_size=25),
)
def test_no_time_lets_through_more_than_the_burst_and_what_the_rate_gives(
    amount: int, burst: int | None, waits: list[float]
) -> None:
    clock = Clock()
    guard = guards.RateLimit(FINE, f"{amount}/second", burst=burst)
    taken: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate, "monotonic", clock)
        for wait in waits:
            clock.now += wait
            answer = ask(guard)[0]
            if answer["status"] == 200:
                taken.append(clock.now)
            else:  # as long as it says, and there is one: no client waits for nothing
                said = dict(answer["headers"])
                clock.now += int(said[b"retry-after"])
                assert ask(guard)[0]["status"] == 200
                taken.append(clock.now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            most = (burst or amount) + (taken[last] - taken[first]) * amount
            assert last - first + 1 <= math.floor(most + 1e-6)


def test_a_header_that_is_missing_means_the_address(clock: Clock) -> None:
    guard = guards.RateLimit(FINE, "1/minute", by="header:X-Team")
    asked = [((b"x-team", b"a"),), ((b"x-team", b"b"),), (), ((b"x-team", b"a"),), ()]
    assert [status(guard, *fields) for fields in asked] == [200, 200, 200, 429, 429]
    assert status(guard, client=("10.0.0.2", 5)) == 200


# Retry and CircuitBreaker


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    asked: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(1)
        await send(start())
        await send(piece(b"half", more_body=True))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        ask(guards.Retry(app, attempts=3, backoff_s=0))
    assert len(asked) == 1


def test_what_an_app_says_after_an_answer_that_is_tried_again_is_not_heard() -> None:
    answers = [[start(503), piece(b"sor", True), piece(b"ry")], [start(200), piece(b"fine")]]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"].append((b"x-touched", b"1"))  # an app may change what is its own
        assert len(scope["headers"]) == 1
        for message in answers.pop(0):
            await send(message)

    assert ask(guards.Retry(app, backoff_s=0)) == [start(200), piece(b"fine")]


def test_the_last_attempt_s_exception_is_raised() -> None:
    failing = saying(RuntimeError("always"))
    with pytest.raises(RuntimeError, match="always"):
        ask(guards.Retry(failing, attempts=2, backoff_s=0))


def test_a_client_that_leaves_during_its_body_is_not_waited_for() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    half = {"type": "http.request", "body": b"half", "more_body": True}
    assert ask(guards.Retry(app), half, {"type": "http.disconnect"}, method="PUT") == []
    assert heard == ["http.request", "http.disconnect"]


def test_clients_that_go_away_open_no_breaker(clock: Clock) -> None:
    guard = guards.CircuitBreaker(saying(), min_requests=1)
    for _ in range(5):  # an app that heard of it returns without an answer
        assert ask(guard) == []
    leaving = guards.CircuitBreaker(saying(asyncio.CancelledError()), min_requests=1)
    for _ in range(5):  # one that waited elsewhere is cancelled
        with pytest.raises(asyncio.CancelledError):
            ask(leaving)
    guard.app = leaving.app = FINE
    assert (status(guard), status(leaving)) == (200, 200)


def test_a_trial_whose_client_goes_away_leaves_the_trial_to_the_next_one(clock: Clock) -> None:
    guard = guards.CircuitBreaker(saying(RuntimeError("broken")), min_requests=1, open_s=5)
    with pytest.raises(RuntimeError):
        ask(guard)
    assert status(guard) == 503
    clock.now += 5
    guard.app = saying()
    assert ask(guard) == []
    guard.app = FINE
    assert [status(guard) for _ in range(2)] == [200, 200]


def test_while_one_tries_all_others_hear_503(clock: Clock) -> None:
    async def all_of_it() -> list[Any]:
        guard = guards.CircuitBreaker(saying(start(500), piece()), min_requests=1, open_s=5)
        await call(guard)
        clock.now += 5
        gate, begun = asyncio.Event(), asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            await gate.wait()
            await FINE(scope, receive, send)

        guard.app = slow
        trial = asyncio.create_task(call(guard))
        await begun.wait()
        others = [(await call(guard))[0]["status"] for _ in range(3)]
        gate.set()
        return [(await trial)[0]["status"], *others, (await call(guard))[0]["status"]]

    assert asyncio.run(all_of_it()) == [200, 503, 503, 503, 200]


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 4.0]), st.booleans()), max_size=30))
def test_a_breaker_opens_by_the_answers_of_its_window_alone(history: list[tuple[float, bool]]) -> None:
    clock, failed = Clock(), [False]
    answers: list[tuple[float, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await saying(start(500 if failed[0] else 200), piece())(scope, receive, send)

    guard = guards.CircuitBreaker(app, max_error_rate=0.5, min_requests=4, window_s=10, open_s=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breaker, "monotonic", clock)
        for wait, failed[0] in history:
            clock.now += wait
            status(guard)
            answers.append((clock.now, failed[0]))
            recent = [bad for when, bad in answers if when >= clock.now - 10]
            if len(recent) >= 4 and sum(recent) > len(recent) / 2:
                assert status(guard) == 503
                return
        failed[0] = False
        assert status(guard) == 200


# RequestSizeAndTime


def body(*pieces: bytes) -> list[dict[str, Any]]:
    last = len(pieces) - 1
    return [{"type": "http.request", "body": one, "more_body": at < last} for at, one in enumerate(pieces)]


@given(pieces=st.lists(st.binary(max_size=6), min_size=1, max_size=6), most=st.integers(1, 12))
def test_however_a_body_is_split_its_size_alone_decides(pieces: list[bytes], most: int) -> None:
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            seen.append(message["body"])
            more = message["more_body"]
        await FINE(scope, receive, send)

    answer = ask(guards.RequestSizeAndTime(app, max_body_bytes=most), *body(*pieces))
    if len(b"".join(pieces)) <= most:
        assert (answer[0]["status"], b"".join(seen)) == (200, b"".join(pieces))
    else:
        assert answer[0]["status"] == 413
        assert len(b"".join(seen)) <= most


def test_an_app_that_answers_all_the_same_is_not_heard_after_413() -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        except Exception:
            await FINE(scope, receive, send)

    answer = ask(guards.RequestSizeAndTime(stubborn, max_body_bytes=3), *body(b"1234"))
    assert [message.get("status") for message in answer] == [413, None]


def test_a_body_that_gets_too_large_after_the_answer_began_is_cut_short_without_a_second_head() -> None:
    async def eager(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await receive()
        await receive()

    answer = ask(guards.RequestSizeAndTime(eager, max_body_bytes=5), *body(b"1234", b"5678"))
    assert [message["type"] for message in answer] == ["http.response.start"]


def test_the_apps_own_errors_and_timeouts_go_on_as_they_are() -> None:
    for error in (RuntimeError("mine"), TimeoutError("mine")):
        with pytest.raises(type(error), match="mine"):
            ask(guards.RequestSizeAndTime(saying(error), max_body_bytes=5, timeout_s=60))


def test_an_answer_that_has_begun_may_take_as_long_as_it_wants() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await asyncio.sleep(0.1)
        await send(piece(b"late"))

    assert ask(guards.RequestSizeAndTime(slow, timeout_s=0.05))[-1]["body"] == b"late"


# Compress


DECODERS = {"gzip": gzip.decompress, "br": brotli.decompress, "zstd": zstd.decompress}
TEXT = (b"content-type", b"text/plain")


@given(
    name=st.sampled_from(sorted(DECODERS)), pieces=st.lists(st.binary(max_size=40) | st.just(b"a" * 3000), max_size=6)
)
def test_however_an_answer_is_split_it_is_the_same_after_decoding(name: str, pieces: list[bytes]) -> None:
    messages = [start(200, TEXT), *(piece(one, True) for one in pieces), piece(b"")]
    answer = ask(guards.Compress(saying(*messages)), headers=[(b"accept-encoding", name.encode())])
    sent = b"".join(message["body"] for message in answer[1:])
    encoded = (b"content-encoding", name.encode()) in answer[0]["headers"]
    assert encoded == bool(pieces)
    assert (DECODERS[name](sent) if encoded else sent) == b"".join(pieces)
    assert [message["more_body"] for message in answer[1:]] == [True] * len(pieces) + [False]


@given(
    weights=st.dictionaries(
        st.sampled_from(["gzip", "br", "zstd", "*", "identity"]), st.sampled_from(["", "1", "0.5", "0"])
    ),
    ours=st.permutations(["gzip", "br", "zstd"]),
)
def test_the_encoding_is_one_that_the_client_takes_and_none_that_it_likes_better_was_there(
    weights: dict[str, str], ours: list[str]
) -> None:
    said = ", ".join(name + (f";q={weight}" if weight else "") for name, weight in weights.items())
    liked = {name: float(weights.get(name, weights.get("*", "0")) or 1) for name in ours}
    chosen = choose_encoding(said.encode(), ours)
    if chosen is None:
        assert max(liked.values()) == 0
    else:
        assert liked[chosen] == max(liked.values()) > 0
        assert ours.index(chosen) == min(at for at, name in enumerate(ours) if liked[name] == liked[chosen])


@pytest.mark.parametrize(
    "head",
    [
        start(204, TEXT),
        start(206, TEXT),
        start(304, TEXT),
        start(200, TEXT, (b"content-encoding", b"br")),
        start(200, TEXT, (b"cache-control", b"public, no-transform")),
        start(200, (b"content-type", b"video/mp4")),
        start(200),
    ],
)
def test_what_must_stay_as_it_is_stays(head: dict[str, Any]) -> None:
    answer = ask(guards.Compress(saying(head, piece(b"x" * 5000))), headers=[(b"accept-encoding", b"gzip")])
    assert answer == [head, piece(b"x" * 5000)]


@pytest.mark.parametrize(
    ("said", "then"),
    [
        ([], [b"Accept-Encoding"]),
        ([b"Origin"], [b"Origin, Accept-Encoding"]),
        ([b"Origin", b"Cookie"], [b"Origin, Cookie, Accept-Encoding"]),
        ([b"*"], [b"*"]),
        ([b"accept-encoding"], [b"accept-encoding"]),
    ],
)
def test_caches_are_told_once_what_the_answer_depends_on(said: list[bytes], then: list[bytes]) -> None:
    app = saying(start(200, TEXT, *((b"vary", value) for value in said)), piece(b"x" * 5000))
    for accepted, method in ((b"gzip", "GET"), (b"identity", "GET"), (b"gzip", "HEAD")):
        answer = ask(guards.Compress(app), headers=[(b"accept-encoding", accepted)], method=method)
        assert [value for name, value in answer[0]["headers"] if name == b"vary"] == then


def test_a_file_that_the_server_sends_and_trailers_pass_with_their_head() -> None:
    file = {"type": "http.response.pathsend", "path": "/x"}
    answer = ask(guards.Compress(saying(start(200, TEXT), file)), headers=[(b"accept-encoding", b"gzip")])
    assert [message["type"] for message in answer] == ["http.response.start", "http.response.pathsend"]
    assert b"content-encoding" not in dict(answer[0]["headers"])


def test_an_app_that_fails_before_its_body_leaves_the_answer_to_the_server() -> None:
    async def collect() -> Messages:
        sent: Messages = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "headers": [(b"accept-encoding", b"gzip")]}
        with pytest.raises(RuntimeError):
            await guards.Compress(saying(start(200, TEXT), RuntimeError("broken")))(scope, None, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(collect()) == []


# Redirect and StripPrefix


@pytest.mark.parametrize(
    ("host", "location"),
    [
        (b"a.example", b"https://a.example/x"),
        (b"a.example:8000", b"https://a.example/x"),
        (b"[::1]", b"https://[::1]/x"),
        (b"[2001:db8::1]:8000", b"https://[2001:db8::1]/x"),
        (b"", b"/x"),
    ],
)
def test_to_https_the_port_goes_and_the_host_stays(host: bytes, location: bytes) -> None:
    answer = ask(guards.Redirect(FINE, https=True), path="/x", raw_path=b"/x", headers=[(b"host", host)])
    assert dict(answer[0]["headers"])[b"location"] == location


PATHS = st.lists(st.sampled_from(["a", "b", "ab", "..", "%2e", "evil.example", ""]), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@given(path=PATHS, moved=st.dictionaries(st.sampled_from(["/a", "/a/b", "/ab"]), st.sampled_from(["/", "/a", "/b"])))
def test_a_moved_path_stays_on_its_host_and_the_longest_prefix_decides(path: str, moved: dict[str, str]) -> None:
    if not moved:
        return
    raw = path.encode()
    answer = ask(guards.Redirect(FINE, paths=moved), path=path, raw_path=raw, headers=[(b"host", b"here.example")])
    fits = [start for start in moved if path == start or path.startswith(start + "/")]
    location = dict(answer[0]["headers"]).get(b"location")
    if not fits:
        assert location is None
        return
    longest = max(fits, key=len)
    target = (moved[longest].rstrip("/") + path[len(longest) :]) or "/"
    if target == path:
        assert location is None
    else:
        assert location == f"http://here.example/{target.lstrip('/')}".encode()


@given(path=PATHS, root=st.sampled_from(["", "/api"]))
def test_path_and_raw_path_lose_the_same_prefix(path: str, root: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], scope["raw_path"], dict(scope["headers"]).get(b"x-forwarded-prefix")))

    ask(guards.StripPrefix(app, "/a/"), path=root + path, raw_path=(root + path).encode(), root_path=root)
    is_below = path == "/a" or path.startswith("/a/")
    expected = root + (path[2:] or "/") if is_below else root + path
    assert seen == [(expected, expected.encode(), b"/a" if is_below else None)]
