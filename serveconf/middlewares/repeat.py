"""``Retry``: what may be repeated is tried again when it failed (RFC 9110 §9.2.2: safe and idempotent methods)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))


class Retry:
    """Up to ``attempts`` in all, while the answer would be one of ``statuses`` or the app raises before it answers.

    A request with a body larger than ``max_body_bytes`` is passed on as it is. Between two attempts it waits
    ``backoff_s``, doubled each time, a random part of it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        attempts: int = 2,
        statuses: Iterable[int] = (502, 503, 504),
        methods: Iterable[str] = IDEMPOTENT,
        backoff_s: float = 0.05,
        max_body_bytes: int = 65_536,
    ) -> None:
        self.app = app
        self._methods = frozenset(methods)
        if self._methods - IDEMPOTENT:
            raise ValueError(f"{', '.join(sorted(self._methods - IDEMPOTENT))} may not be repeated")
        if attempts < 1:
            raise ValueError("attempts must be at least 1")
        self._attempts = attempts
        self._statuses = frozenset(statuses)
        self._backoff_s = backoff_s
        self._most = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in self._methods:
            await self.app(scope, receive, send)
            return
        body = await _Body.read(receive, self._most)
        attempts = 1 if body.has_more else self._attempts
        for attempt in range(1, attempts + 1):
            trial = _Trial(send, self._statuses if attempt < attempts else frozenset())
            try:
                await self.app({**scope, "headers": list(scope["headers"])}, body.again(), trial.send)
            except Exception:  # a trial that failed before it began to answer is tried again; the last one is raised
                if attempt == attempts or trial.started:
                    raise
            else:
                if not trial.failed:
                    return
            await asyncio.sleep(self._backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))


class _Body:
    """The request's body, or as much of it as was read, to be given again."""

    def __init__(self, receive: Receive, messages: list[Message], has_more: bool) -> None:
        self._receive = receive
        self._messages = messages
        self.has_more = has_more

    @classmethod
    async def read(cls, receive: Receive, most: int) -> _Body:
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return cls(receive, messages, has_more=False)
            if size > most:
                return cls(receive, messages, has_more=True)

    def again(self) -> Receive:
        """``receive`` from its beginning."""
        left = iter(self._messages)

        async def receive() -> Message:
            for message in left:
                return message
            return await self._receive()

        return receive


class _Trial:
    """Holds an answer back that is to be tried again."""

    def __init__(self, send: Send, statuses: frozenset[int]) -> None:
        self._send = send
        self._statuses = statuses
        self.started = False
        self.failed = False

    async def send(self, message: Message) -> None:
        if self.failed:
            return
        if message["type"] == "http.response.start" and message["status"] in self._statuses:
            self.failed = True
            return
        self.started = True
        await self._send(message)
