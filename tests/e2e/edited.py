"""The middleware that edits put before deployments: it adds a header field."""

from __future__ import annotations

ADDED = """
class Adds:
    def __init__(self, app, value):
        self.app, self.value = app, value

    async def __call__(self, scope, receive, send):
        async def sending(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-added", self.value.encode())]
            await send(message)

        await self.app(scope, receive, sending)
"""
