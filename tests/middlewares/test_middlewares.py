"""The guards, each around a plain app: who gets in, what they add, and that nothing else of a request changes."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import brotli
import httpx
import pytest
from backports import zstd
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from stopped_clock import Clock

import serveconf.middlewares as guards
from serveconf.middlewares import rate, tokens
from serveconf.middlewares.compress import choose_encoding
from serveconf.middlewares.keys import check_password, hash_key, hash_password

REAL_CLIENT = httpx.AsyncClient
App = Callable[[Any, Any, Any], Awaitable[None]]


async def show(request: Request) -> Response:
    """What the app sees."""
    body = await request.body()
    claims = getattr(request.state, "claims", None)
    seen = {"path": request.url.path, "headers": dict(request.headers), "body": len(body), "claims": claims}
    return JSONResponse(seen)


async def large(request: Request) -> Response:
    return PlainTextResponse("serveconf " * 1000, headers={"etag": '"1"'})


async def stream(request: Request) -> Response:
    async def pieces() -> Any:
        for number in range(3):
            yield f"piece {number}\n"

    return StreamingResponse(pieces(), media_type="text/plain")


async def slow(request: Request) -> Response:
    await asyncio.sleep(30)
    return PlainTextResponse("late")


PLAIN = Starlette(
    routes=[
        Route("/large", large),
        Route("/stream", stream),
        Route("/slow", slow),
        Route("/{path:path}", show, methods=["GET", "POST", "PUT", "DELETE"]),
    ]
)


def client(app: App, address: str = "10.0.0.1", base_url: str = "http://a.example") -> httpx.AsyncClient:
    return REAL_CLIENT(transport=httpx.ASGITransport(app, client=(address, 5)), base_url=base_url)


def get(app: App, path: str = "/", **headers: str) -> httpx.Response:
    async def once() -> httpx.Response:
        async with client(app) as session:
            return await session.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return asyncio.run(once())


def websocket(app: App, *headers: tuple[bytes, bytes]) -> list[dict[str, Any]]:
    """What a handshake hears."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": headers, "client": ("10.0.0.1", 5), "extensions": {}}
    asyncio.run(app({**scope, "extensions": {"websocket.http.response": {}}}, receive, send))  # type: ignore[arg-type]
    return sent


def test_every_guard_can_be_imported_by_its_name() -> None:
    for name in guards.__all__:
        assert getattr(guards, name).__doc__
    with pytest.raises(AttributeError):
        guards.Nothing  # noqa: B018


# RateLimit


def test_a_client_past_its_rate_hears_429_and_when_to_come_again(clock: Clock) -> None:
    app = guards.RateLimit(PLAIN, "2/minute")
    first, second, third = get(app), get(app), get(app)
    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert first.headers["ratelimit-policy"] == '"default";q=2;w=60'
    assert first.headers["ratelimit"] == '"default";r=1;t=30'
    assert third.headers["retry-after"] == "30"
    clock.now += 30
    assert [get(app).status_code for _ in range(2)] == [200, 429]


def test_a_burst_comes_at_once_and_then_the_rate_holds(clock: Clock) -> None:
    app = guards.RateLimit(PLAIN, "1/second", burst=3, by="all")
    assert [get(app).status_code for _ in range(4)] == [200, 200, 200, 429]
    clock.now += 1
    assert [get(app).status_code for _ in range(2)] == [200, 429]


def test_each_key_has_its_own_bucket(clock: Clock) -> None:
    app = guards.RateLimit(PLAIN, "1/minute", by="header:x-api-key")
    assert [get(app, x_api_key=key).status_code for key in ("a", "b", "a")] == [200, 200, 429]
    assert [get(app).status_code for _ in range(2)] == [200, 429]


def test_clients_that_are_not_seen_any_more_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MOST_CLIENTS", 2)
    app = guards.RateLimit(PLAIN, "1/minute", by="header:k")
    assert [get(app, k=key).status_code for key in ("a", "b", "c", "b", "a")] == [200, 200, 200, 429, 200]


def test_a_storage_counts_for_several_processes() -> None:
    app = guards.RateLimit(PLAIN, "2/hour", storage="memory://")
    assert [get(app).status_code for _ in range(3)] == [200, 200, 429]


def test_a_websocket_past_the_rate_is_refused(clock: Clock) -> None:
    async def accept(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    app = guards.RateLimit(accept, "1/minute")
    assert websocket(app)[0]["type"] == "websocket.accept"
    assert websocket(app)[0]["status"] == 429


@pytest.mark.parametrize(
    "wrong", [{"rate": "often"}, {"rate": "1/minute", "burst": 0}, {"rate": "1/minute", "by": "moon"}]
)
def test_a_limit_that_makes_no_sense_is_refused_when_it_is_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"often|burst|by must be"):
        guards.RateLimit(PLAIN, **wrong)


# ApiKey and BasicAuth


def test_only_a_known_key_gets_in_and_the_app_hears_its_name_not_the_key() -> None:
    app = guards.ApiKey(PLAIN, {"partner": hash_key("s3cret"), "other": hash_key("else")})
    assert get(app).status_code == 401
    assert get(app, x_api_key="wrong").headers["www-authenticate"] == "ApiKey"
    seen = get(app, x_api_key="s3cret", x_api_key_name="forged").json()["headers"]
    assert seen["x-api-key-name"] == "partner"
    assert "x-api-key" not in seen


def test_keys_come_from_a_file_and_as_bearer_tokens_too(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# partners\n\nlate:{hash_key('k1')}\n")
    app = guards.ApiKey(PLAIN, file=str(file), header="Authorization")
    assert get(app, authorization="Bearer k1").json()["headers"]["x-api-key-name"] == "late"
    assert get(app, authorization="Basic k1").status_code == 401


def test_a_key_that_is_no_hash_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="the hash of key 'partner' is no sha256:HEX") as caught:
        guards.ApiKey(PLAIN, {"partner": "s3cret"})
    assert "s3cret" not in str(caught.value)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_a_name_and_its_password_get_in() -> None:
    app = guards.BasicAuth(PLAIN, {"ann": hash_password("pass:word")}, realm="shop")
    assert get(app).headers["www-authenticate"] == 'Basic realm="shop", charset="UTF-8"'
    for wrong in (basic("ann", "no"), basic("bob", "pass:word"), "Basic !!", "Bearer x", "Basic " + "YQ=="):
        assert get(app, authorization=wrong).status_code == 401
    for _ in range(2):  # the second time from memory
        seen = get(app, authorization=basic("ann", "pass:word"), x_user="root").json()["headers"]
        assert seen["x-user"] == "ann"
        assert "authorization" not in seen


def test_a_password_is_kept_with_a_salt_of_its_own() -> None:
    one, other = hash_password("x"), hash_password("x")
    assert one != other
    assert check_password("x", one)
    assert not check_password("y", one)


# JWT


KEY = OKPKey.generate_key("Ed25519", {"kid": "k1"})


def signed(key: OKPKey = KEY, **claims: Any) -> str:
    said = {"iss": "https://id.example", "aud": "shop", "sub": "ann", "exp": int(time.time()) + 60, **claims}
    said = {name: value for name, value in said.items() if value is not None}
    return "Bearer " + jwt.encode({"alg": "Ed25519", "kid": key.kid}, said, key, algorithms=["Ed25519"])


def key_file(folder: Path, *keys: OKPKey) -> str:
    file = folder / "jwks.json"
    file.write_text(json.dumps(KeySet(list(keys)).as_dict(private=False)))
    return str(file)


def test_a_signed_token_of_the_right_issuer_for_us_gets_in(tmp_path: Path) -> None:
    app = guards.JWT(PLAIN, issuer="https://id.example", audience="shop", jwks_file=key_file(tmp_path, KEY))
    good = signed()
    for _ in range(2):  # the second time from memory
        seen = get(app, authorization=good, x_subject="root").json()
        assert (seen["headers"]["x-subject"], seen["claims"]["sub"]) == ("ann", "ann")
    assert get(app).headers["www-authenticate"] == "Bearer"
    for wrong in (
        signed(iss="https://evil.example"),
        signed(aud="other"),
        signed(exp=int(time.time()) - 3600),
        signed(exp=None),
        signed(OKPKey.generate_key("Ed25519", {"kid": "k1"})),
        good[:-4] + "AAAA",
        "Bearer x",
        "Bearer " + "x" * 20_000,
    ):
        answer = get(app, authorization=wrong)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


def test_an_unsigned_token_never_gets_in(tmp_path: Path) -> None:
    app = guards.JWT(PLAIN, jwks_file=key_file(tmp_path, KEY))
    head, body = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"none"}', b'{"exp":9e12}'))
    assert get(app, authorization=f"Bearer {head}.{body}.").status_code == 401
    with pytest.raises(ValueError, match="none"):
        guards.JWT(PLAIN, secret="s" * 32, algorithms=["none"])


def test_a_key_that_is_newer_than_the_set_has_it_fetched_again(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    newer = OKPKey.generate_key("Ed25519", {"kid": "k2"})
    served = [KEY]
    fetched = 0

    async def issuer(request: httpx.Request) -> httpx.Response:
        nonlocal fetched
        fetched += 1
        return httpx.Response(200, json=KeySet(list(served)).as_dict(private=False))

    monkeypatch.setattr(
        tokens.httpx, "AsyncClient", lambda **kw: REAL_CLIENT(transport=httpx.MockTransport(issuer), **kw)
    )
    app = guards.JWT(PLAIN, jwks_url="https://id.example/keys")
    assert get(app, authorization=signed()).status_code == 200
    assert get(app, authorization=signed(newer)).status_code == 401
    assert fetched == 1  # not at every unknown key
    served.append(newer)
    clock.now += 11
    assert get(app, authorization=signed(newer)).status_code == 200
    assert fetched == 2


def test_an_issuer_that_cannot_be_reached_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def issuer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500)

    monkeypatch.setattr(
        tokens.httpx, "AsyncClient", lambda **kw: REAL_CLIENT(transport=httpx.MockTransport(issuer), **kw)
    )
    app = guards.JWT(PLAIN, jwks_url="https://id.example/keys")
    assert get(app, authorization=signed()).status_code == 401


# IpAllowList, SecurityHeaders, RequestSizeAndTime


@pytest.mark.parametrize(
    ("address", "status"),
    [("10.1.2.3", 200), ("10.9.9.9", 403), ("::1", 200), ("::ffff:10.1.2.3", 200), ("192.0.2.1", 403), ("", 403)],
)
def test_only_some_addresses_come_in(address: str, status: int) -> None:
    app = guards.IpAllowList(PLAIN, ["10.0.0.0/8", "::1"], deny=["10.9.0.0/16"])

    async def once() -> int:
        async with client(app, address) as session:
            return (await session.get("/")).status_code

    assert asyncio.run(once()) == status


def test_security_fields_are_added_where_the_app_says_none() -> None:
    async def own(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("x", headers={"x-frame-options": "SAMEORIGIN"})(scope, receive, send)

    async def over_https() -> httpx.Response:
        async with client(guards.SecurityHeaders(own), base_url="https://a.example") as session:
            return await session.get("/")

    answer = get(guards.SecurityHeaders(own, content_security_policy="default-src 'self'"))
    assert answer.headers.get_list("x-frame-options") == ["SAMEORIGIN"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert "strict-transport-security" not in answer.headers
    assert "max-age=31536000" in asyncio.run(over_https()).headers["strict-transport-security"]


def test_a_body_past_the_limit_gets_413_said_or_unsaid() -> None:
    app = guards.RequestSizeAndTime(PLAIN, max_body_bytes=10)

    async def pieces() -> Any:
        for _ in range(4):
            yield b"12345"

    async def post(content: Any) -> int:
        async with client(app) as session:
            return (await session.post("/", content=content)).status_code

    assert asyncio.run(post(b"1234567890")) == 200
    assert asyncio.run(post(b"12345678901")) == 413
    assert asyncio.run(post(pieces())) == 413


def test_an_answer_that_does_not_begin_in_time_is_a_504() -> None:
    assert get(guards.RequestSizeAndTime(PLAIN, timeout_s=0.05), "/slow").status_code == 504
    assert get(guards.RequestSizeAndTime(PLAIN, timeout_s=5), "/stream").text == "piece 0\npiece 1\npiece 2\n"


# Retry and CircuitBreaker


class Failing:
    """Answers with the statuses in turn, the last one for ever; 0 is an exception."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append(await Request(scope, receive).body())
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if not status:
            raise RuntimeError("broken")
        await PlainTextResponse(str(status), status_code=status)(scope, receive, send)


def test_what_may_be_repeated_is_tried_again_with_its_body() -> None:
    app = Failing(503, 0, 200)

    async def put() -> int:
        async with client(guards.Retry(app, attempts=3, backoff_s=0)) as session:
            return (await session.put("/", content=b"same")).status_code

    assert asyncio.run(put()) == 200
    assert app.bodies == [b"same"] * 3


def test_what_may_not_be_repeated_is_not() -> None:
    app = Failing(503, 200)

    async def post() -> int:
        async with client(guards.Retry(app, attempts=3)) as session:
            return (await session.post("/", content=b"x")).status_code

    assert asyncio.run(post()) == 503
    with pytest.raises(ValueError, match="POST may not be repeated"):
        guards.Retry(app, methods=["GET", "POST"])


def test_the_last_attempt_is_what_the_client_gets() -> None:
    app = Failing(503, 502, 500)
    assert get(guards.Retry(app, attempts=2, backoff_s=0)).status_code == 502
    assert get(guards.Retry(app, attempts=2, backoff_s=0)).status_code == 500  # an app's own error is not repeated


def test_a_body_that_is_too_large_is_passed_on_once() -> None:
    app = Failing(503, 200)

    async def pieces() -> Any:
        for _ in range(4):
            yield b"12345"

    async def put() -> int:
        async with client(guards.Retry(app, max_body_bytes=8, backoff_s=0)) as session:
            return (await session.put("/", content=pieces())).status_code

    assert asyncio.run(put()) == 503
    assert app.bodies == [b"12345" * 4]


def test_a_deployment_that_keeps_failing_is_left_alone_for_a_while(clock: Clock) -> None:
    app = Failing(500, 500, 500, 500, 200)
    guard = guards.CircuitBreaker(app, min_requests=3, open_s=5)
    assert [get(guard).status_code for _ in range(4)] == [500, 500, 500, 503]
    assert get(guard).headers["retry-after"] == "5"
    clock.now += 5
    assert [get(guard).status_code for _ in range(2)] == [500, 503]  # the one that was let through failed too
    clock.now += 5
    assert [get(guard).status_code for _ in range(3)] == [200, 200, 200]
    assert len(app.bodies) == 7


def test_old_failures_do_not_count(clock: Clock) -> None:
    guard = guards.CircuitBreaker(Failing(500, 500, 500, 200), min_requests=4, window_s=10, max_error_rate=0.4)
    for _ in range(3):
        get(guard)
    clock.now += 11
    assert [get(guard).status_code for _ in range(6)] == [200] * 6


# Compress


DECODERS = {"gzip": gzip.decompress, "br": brotli.decompress, "zstd": zstd.decompress}


def raw(app: App, path: str, accepted: str) -> tuple[httpx.Headers, bytes]:
    async def once() -> tuple[httpx.Headers, bytes]:
        async with client(app) as session, session.stream("GET", path, headers={"accept-encoding": accepted}) as answer:
            return answer.headers, b"".join([piece async for piece in answer.aiter_raw()])

    return asyncio.run(once())


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("path", ["/large", "/stream"])
def test_an_answer_is_what_it_was_after_decoding(name: str, path: str) -> None:
    headers, body = raw(guards.Compress(PLAIN), path, name)
    assert (headers["content-encoding"], headers["vary"]) == (name, "Accept-Encoding")
    assert DECODERS[name](body) == get(PLAIN, path).content
    if path == "/large":
        assert int(headers["content-length"]) == len(body) < 1000
        assert headers["etag"] == 'W/"1"'


def test_pieces_of_a_stream_can_be_read_as_they_come() -> None:
    sent: list[bytes] = []

    async def collect(message: Any) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.sleep(30)

    scope = {
        "type": "http", "method": "GET", "path": "/stream", "raw_path": b"/stream", "query_string": b"", "root_path": "",
        "headers": [(b"accept-encoding", b"gzip")], "scheme": "http", "server": ("a", 1), "client": ("b", 2),
    }  # fmt: skip
    asyncio.run(guards.Compress(PLAIN)(scope, receive, collect))
    decoder = zlib.decompressobj(31)
    assert [decoder.decompress(piece) for piece in sent[1:4]] == [b"piece 0\n", b"piece 1\n", b"piece 2\n"]


def test_what_gains_nothing_is_left_alone() -> None:
    async def image(scope: Any, receive: Any, send: Any) -> None:
        await Response(b"x" * 5000, media_type="image/png")(scope, receive, send)

    assert "content-encoding" not in raw(guards.Compress(image), "/", "gzip")[0]
    headers, body = raw(guards.Compress(PLAIN), "/small", "gzip")
    assert "content-encoding" not in headers
    headers, body = raw(guards.Compress(PLAIN), "/large", "identity")
    assert ("content-encoding" not in headers, headers["vary"], len(body)) == (True, "Accept-Encoding", 10_000)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"gzip, br", "br"),
        (b"gzip;q=1, br;q=0.5", "gzip"),
        (b"*", "zstd"),
        (b"*;q=0, gzip;q=0.1", "gzip"),
        (b"zstd;q=0, br;q=nan-or-so", None),
        (b"", None),
        (b"identity", None),
    ],
)
def test_the_client_says_which_encoding_it_likes_best(accepted: bytes, chosen: str | None) -> None:
    assert choose_encoding(accepted, ("zstd", "br", "gzip")) == chosen


# Redirect and StripPrefix


@pytest.mark.parametrize(
    ("options", "url", "location"),
    [
        ({"https": True}, "http://a.example/x?y=1", "https://a.example/x?y=1"),
        ({"https": True}, "http://a.example:8000/x", "https://a.example/x"),
        ({"https": True}, "https://a.example/x", None),
        ({"host": "www.a.example"}, "http://a.example/x", "http://www.a.example/x"),
        ({"host": "a.example"}, "http://a.example/x", None),
        ({"paths": {"/old": "/new"}}, "http://a.example/old/b%20c", "http://a.example/new/b%20c"),
        ({"paths": {"/old": "/new"}}, "http://a.example/older", None),
        ({"paths": {"/old": "https://b.example"}}, "http://a.example/old/x?y", "https://b.example/x?y"),
        ({"paths": {"/old": "/"}}, "http://a.example/old//evil.example", "http://a.example/evil.example"),
    ],
)
def test_a_redirect_leads_elsewhere_and_never_to_where_one_is(
    options: dict[str, Any], url: str, location: str | None
) -> None:
    async def once() -> httpx.Response:
        async with client(guards.Redirect(PLAIN, **options)) as session:
            return await session.get(url)

    answer = asyncio.run(once())
    assert answer.headers.get("location") == location
    assert answer.status_code == (308 if location else 200)


def test_a_prefix_is_taken_off_below_the_mount_point() -> None:
    async def seen(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse([scope["path"], scope["raw_path"].decode(), scope["root_path"]])(scope, receive, send)

    async def once(path: str) -> Any:
        transport = httpx.ASGITransport(guards.StripPrefix(seen, "/v1"), root_path="/api")
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as session:
            return (await session.get(path)).json()

    assert asyncio.run(once("/api/v1/a%20b")) == ["/api/a b", "/api/a%20b", "/api"]
    assert asyncio.run(once("/api/v1")) == ["/api/", "/api/", "/api"]
    assert asyncio.run(once("/api/v10/x")) == ["/api/v10/x", "/api/v10/x", "/api"]
