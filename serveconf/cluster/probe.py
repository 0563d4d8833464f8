"""Ask an app for its health by a GET on a path of its own, inside the process."""

from __future__ import annotations

import asyncio
from typing import Any

from serveconf.ingress.app import ASGIApp


async def probe_path(app: ASGIApp, path: str, prefix: str | None) -> str:
    """Empty where the answer is 2xx or 3xx, else what is wrong."""
    root_path = "" if prefix in (None, "/") else str(prefix)
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": root_path + path,
        "raw_path": (root_path + path).encode(),
        "query_string": b"",
        "root_path": root_path,
        "headers": [(b"host", b"localhost"), (b"user-agent", b"serveconf-health")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    status = 0
    done = asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            done.set()

    await app(scope, receive, send)
    return "" if 200 <= status < 400 else f"{path} answered {status}"
