"""``RateLimit``: so many requests in a time, for each client. A bucket of tokens that refills evenly.

Buckets live in the process: with several proxies or workers each counts for itself, and a client may have as many times
the rate as there are processes. ``storage`` (a ``limits`` URI such as redis://…) has them counted in one place instead.
"""

from __future__ import annotations

from math import ceil
from time import monotonic, time

from limits import RateLimitItem, parse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.middlewares.answers import KINDS, answer, client_of, header, token

MOST_CLIENTS = 100_000  # whose buckets are kept; past it the one unseen for the longest is forgotten


class RateLimit:
    """429 with ``Retry-After`` past the rate; every answer carries ``RateLimit`` and ``RateLimit-Policy`` (the IETF draft).

    ``rate``: ``100/minute``, ``5 per 10 seconds``; ``burst``: how many may come at once (default: the rate's number);
    ``by``: ``client`` (its address), ``all`` (one bucket), or ``header:NAME`` (its value; the address where it is missing).
    """

    def __init__(
        self, app: ASGIApp, rate: str, *, burst: int | None = None, by: str = "client", storage: str | None = None
    ) -> None:
        self.app = app
        item = parse(rate)
        if burst is not None and burst < 1:
            raise ValueError("burst must be at least 1")
        kind, _, name = by.partition(":")
        if kind not in ("client", "all", "header") or (kind == "header") != bool(name):
            raise ValueError(f"by must be client, all or header:NAME, not {by!r}")
        self._header = token(name) if name else None
        self._is_shared = kind == "all"
        self._capacity = float(burst or item.amount)
        self._per_s = item.amount / item.get_expiry()
        self._policy = b'"default";q=%d;w=%d' % (item.amount, item.get_expiry())
        self._buckets: dict[bytes | str, list[float]] = {}  # client → [tokens, when that was], the newest last
        self._elsewhere = _Elsewhere(storage, item) if storage else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in KINDS:
            await self.app(scope, receive, send)
            return
        client = self._client(scope)
        left, wait_s = self._take(client) if self._elsewhere is None else await self._elsewhere.take(str(client))
        fields = [(b"ratelimit-policy", self._policy), (b"ratelimit", b'"default";r=%d;t=%d' % (left, ceil(wait_s)))]
        if left < 0:
            fields = [
                (b"retry-after", b"%d" % max(1, ceil(wait_s))),
                (b"ratelimit-policy", self._policy),
                (b"ratelimit", b'"default";r=0;t=%d' % max(1, ceil(wait_s))),
            ]
            await answer(scope, receive, send, 429, "Too Many Requests", fields)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *fields]
            await send(message)

        await self.app(scope, receive, telling)

    def _client(self, scope: Scope) -> bytes | str:
        if self._is_shared:
            return ""
        if self._header is not None:
            value = header(scope, self._header)
            if value is not None:
                return value
        return client_of(scope)

    def _take(self, client: bytes | str) -> tuple[int, float]:
        """One token: how many are left (-1: there was none), and the seconds until there is one more."""
        now = monotonic()
        bucket = self._buckets.pop(client, None)
        if bucket is None:
            if len(self._buckets) >= MOST_CLIENTS:
                del self._buckets[next(iter(self._buckets))]
            bucket = [self._capacity, now]
        else:
            bucket[0] = min(self._capacity, bucket[0] + (now - bucket[1]) * self._per_s)
            bucket[1] = now
        self._buckets[client] = bucket
        if bucket[0] < 1:
            return -1, (1 - bucket[0]) / self._per_s
        bucket[0] -= 1
        return int(bucket[0]), (1 - bucket[0] % 1) / self._per_s


class _Elsewhere:
    """The same, counted by a storage that several processes share: a sliding window."""

    def __init__(self, uri: str, item: RateLimitItem) -> None:
        from limits.aio.strategies import SlidingWindowCounterRateLimiter
        from limits.storage import storage_from_string

        storage = storage_from_string(uri if uri.startswith("async+") else f"async+{uri}")
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._item = item

    async def take(self, client: str) -> tuple[int, float]:
        taken = await self._limiter.hit(self._item, client)
        window = await self._limiter.get_window_stats(self._item, client)
        return (window.remaining if taken else -1), max(0.0, window.reset_time - time())
