"""What each guard costs a request: the difference to the app alone, both in one process, the best of many rounds.

python benchmarks/guards.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter_ns, time
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

import serveconf.middlewares as guards
from serveconf.middlewares.keys import hash_key, hash_password

CALLS, ROUNDS = 500, 60
BODY = b'{"items": [1, 2, 3]}' * 20
SECRET = "0123456789abcdef0123456789abcdef"
TOKEN = jwt.encode({"alg": "HS256"}, {"exp": int(time()) + 3600, "sub": "ann"}, OctKey.import_key(SECRET))
HEADERS = [
    (b"host", b"a.example"),
    (b"user-agent", b"benchmark"),
    (b"accept-encoding", b"gzip"),
    (b"x-api-key", b"s3cret"),
]
SCOPE = {
    "type": "http", "method": "GET", "path": "/v1/items", "raw_path": b"/v1/items", "root_path": "", "query_string": b"",
    "scheme": "http", "headers": HEADERS, "client": ("10.0.0.1", 4711),
}  # fmt: skip

App = Callable[[Any, Any, Any], Awaitable[None]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    pass


async def once_each(apps: dict[str, tuple[App, dict[str, Any]]]) -> dict[str, float]:
    """Nanoseconds for a request of each, interleaved."""
    best = dict.fromkeys(apps, float("inf"))
    for _ in range(ROUNDS):
        for name, (one, scope) in apps.items():
            began = perf_counter_ns()
            for _ in range(CALLS):
                await one(scope, receive, send)
            best[name] = min(best[name], (perf_counter_ns() - began) / CALLS)
    return best


def with_headers(*fields: tuple[bytes, bytes]) -> dict[str, Any]:
    return {**SCOPE, "headers": [*HEADERS, *fields]}


def main() -> None:
    basic = (b"authorization", b"Basic YW5uOnB3")
    apps: dict[str, tuple[App, dict[str, Any]]] = {
        "the app alone": (app, SCOPE),
        "RateLimit": (guards.RateLimit(app, "1000000000/second"), SCOPE),
        "ApiKey (10 keys)": (
            guards.ApiKey(app, {"a": hash_key("s3cret")} | {str(i): hash_key(str(i)) for i in range(9)}),
            SCOPE,
        ),
        "BasicAuth (known)": (guards.BasicAuth(app, {"ann": hash_password("pw")}), with_headers(basic)),
        "JWT (known)": (guards.JWT(app, secret=SECRET), with_headers((b"authorization", f"Bearer {TOKEN}".encode()))),
        "IpAllowList": (guards.IpAllowList(app, ["10.0.0.0/8"]), SCOPE),
        "SecurityHeaders": (guards.SecurityHeaders(app), SCOPE),
        "RequestSizeAndTime": (guards.RequestSizeAndTime(app, max_body_bytes=1000, timeout_s=5), SCOPE),
        "Retry": (guards.Retry(app), SCOPE),
        "CircuitBreaker": (guards.CircuitBreaker(app), SCOPE),
        "Compress (too small to)": (guards.Compress(app), SCOPE),
        "Redirect": (guards.Redirect(app, host="a.example"), SCOPE),
        "StripPrefix": (guards.StripPrefix(app, "/v1"), SCOPE),
    }
    best = asyncio.run(once_each(apps))
    alone = best.pop("the app alone")
    print(f"{'the app alone':<26}{alone / 1000:6.2f} µs")
    for name, cost in best.items():
        print(f"{name:<26}{(cost - alone) / 1000:+6.2f} µs")


if __name__ == "__main__":
    main()
