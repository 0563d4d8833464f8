"""What the proxy answers by itself: health, the routing table, no route, and a request that no deployment can take now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from starlette.types import Receive, Scope, Send

from serveconf.proxy.tally import Reason, trail_of

_PLAIN = b"text/plain; charset=utf-8"


async def send_text(
    scope: Scope,
    send: Send,
    status: int,
    text: str,
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    content_type: bytes = _PLAIN,
) -> None:
    """One short answer. A WebSocket handshake is refused with it, as plainly as the server allows (else 403)."""
    body = text.encode("utf-8", "replace")
    head = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers]
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
    await send({"type": f"{kind}.start", "status": status, "headers": head})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})


async def answer_no_route(scope: Scope, receive: Receive, send: Send) -> None:
    """404 that names the path."""
    trail_of(scope).reason = Reason.NO_ROUTE
    await send_text(scope, send, 404, f"No route for {scope['path']}\n")


async def answer_not_allowed(scope: Scope, send: Send, allowed: Sequence[str]) -> None:
    """405 of a path that some deployment takes with other methods (RFC 9110 §15.5.6)."""
    trail_of(scope).reason = Reason.NO_ROUTE
    allow = (b"allow", ", ".join(allowed).encode())
    await send_text(scope, send, 405, f"{scope.get('method', 'GET')} is not taken there\n", headers=(allow,))


async def answer_server_options(scope: Scope, receive: Receive, send: Send) -> None:
    """``OPTIONS *`` asks about the server as a whole (RFC 9110 §9.3.7)."""
    allow = (b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    await send({"type": "http.response.start", "status": 204, "headers": [allow]})
    await send({"type": "http.response.body", "body": b""})


async def answer_not_ready(scope: Scope, receive: Receive, send: Send) -> None:
    """503 while the proxy has no generation yet."""
    trail_of(scope).reason = Reason.NOT_READY
    await send_text(scope, send, 503, "No generation yet\n", headers=((b"retry-after", b"1"),))


async def answer_health(scope: Scope, send: Send, why_not: str | None) -> None:
    """``/-/healthz``: 200 ``success``, or 503 with the reason."""
    if why_not is None:
        await send_text(scope, send, 200, "success")
    else:
        await send_text(scope, send, 503, why_not)


async def answer_routes(scope: Scope, send: Send, deployments: Mapping[str, str]) -> None:
    """``/-/routes``: prefix → deployment."""
    text = msgspec.json.encode(dict(deployments)).decode()
    await send_text(scope, send, 200, text, content_type=b"application/json")
