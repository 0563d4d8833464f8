"""``CircuitBreaker``: a deployment that keeps failing is left alone for a while, and those who ask hear so at once."""

from __future__ import annotations

from collections import deque
from math import ceil
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.middlewares.answers import answer


class CircuitBreaker:
    """Opens when of the last ``window_s`` seconds' answers (``min_requests`` at least) more than ``max_error_rate`` were 5xx.

    Open, everybody gets 503 with ``Retry-After`` for ``open_s``; then one request is let through, and its answer decides.
    A request that ends without an answer, as one whose client leaves, counts as none: a time limit stands inside of it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_error_rate: float = 0.5,
        min_requests: int = 20,
        window_s: float = 10.0,
        open_s: float = 5.0,
    ) -> None:
        self.app = app
        if not 0 <= max_error_rate < 1 or min_requests < 1 or window_s <= 0 or open_s <= 0:
            raise ValueError("max_error_rate is from 0 up to 1, and the others are more than 0")
        self._max_error_rate = max_error_rate
        self._min_requests = min_requests
        self._window_s = window_s
        self._open_s = open_s
        self._answers: deque[tuple[float, bool]] = deque(maxlen=max(1000, min_requests))
        self._failed = 0
        self._open_until = 0.0  # 0: it is closed
        self._is_trying = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        now = monotonic()
        is_trial = False
        if self._open_until:
            if now < self._open_until or self._is_trying:
                wait = b"%d" % max(1, ceil(self._open_until - now))
                await answer(
                    scope, receive, send, 503, "Service Unavailable: too many errors", ((b"retry-after", wait),)
                )
                return
            is_trial = self._is_trying = True
        status = 0  # without an answer: its client went away, or a middleware around this one ended it

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception:  # raised on: the server makes a 500 of it
            status = status or 500
            raise
        finally:
            if is_trial:
                self._is_trying = False
            if status and is_trial:
                self._decide(failed=status >= 500)
            elif status:
                self._note(failed=status >= 500)

    def _decide(self, *, failed: bool) -> None:
        """The one request that was let through says whether it goes on."""
        self._open_until = monotonic() + self._open_s if failed else 0.0
        self._answers.clear()
        self._failed = 0

    def _note(self, *, failed: bool) -> None:
        answers, now = self._answers, monotonic()
        if len(answers) == answers.maxlen:
            self._failed -= answers.popleft()[1]
        answers.append((now, failed))
        self._failed += failed
        while answers and answers[0][0] < now - self._window_s:
            self._failed -= answers.popleft()[1]
        if len(answers) >= self._min_requests and self._failed > self._max_error_rate * len(answers):
            self._open_until = now + self._open_s
