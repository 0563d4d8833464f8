"""One GET on a served app, asked directly and not over the network: is it well?"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message


async def probe_path(app: ASGIApp, path: str, prefix: str | None, state: dict[str, Any] | None = None) -> str:
    """Empty where ``GET path`` (``path`` as the app knows it, below its ``prefix``) answers 2xx or 3xx; else what is wrong."""
    status = 0
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # a probe never leaves before its answer
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    await app(_scope(path, "" if prefix in (None, "/") else str(prefix), dict(state or {})), receive, send)
    if status == 0:
        return f"GET {path} gave no answer"
    return "" if 200 <= status < 400 else f"GET {path} answered {status}"


def _scope(path: str, root_path: str, state: dict[str, Any]) -> dict[str, Any]:
    path, _, query = path.partition("?")
    full = f"{root_path}/{path.lstrip('/')}"
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(full),
        "raw_path": full.encode(),
        "query_string": query.encode(),
        "root_path": root_path,
        "headers": [(b"host", b"localhost"), (b"user-agent", b"serveconf-health")],
        "client": ("127.0.0.1", 0),
        "server": ("localhost", 80),
        "state": state,
    }
