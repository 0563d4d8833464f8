"""``Compress``: answers as small as the client can take them: zstd, br or gzip, by Accept-Encoding (RFC 9110 §12.5.3).

br and zstd need the extra ``serveconf[guards]``; without it gzip is what there is. Compressing runs where the proxy runs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.middlewares.answers import header

_TYPES = (
    b"text/",
    b"application/json",
    b"application/javascript",
    b"application/xml",
    b"application/wasm",
    b"image/svg",
)


class Encoder(Protocol):
    """One answer's compression."""

    def add(self, data: bytes, *, last: bool) -> bytes:
        """What is ready to be sent: a piece that a client can read at once, or the end."""


class _Gzip:
    def __init__(self, level: int) -> None:
        self._with = zlib.compressobj(level, zlib.DEFLATED, 31)

    def add(self, data: bytes, *, last: bool) -> bytes:
        return self._with.compress(data) + self._with.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


class _Brotli:
    def __init__(self, library: Any, level: int) -> None:
        self._with = library.Compressor(quality=level)

    def add(self, data: bytes, *, last: bool) -> bytes:
        done: bytes = self._with.process(data) + (self._with.finish() if last else self._with.flush())
        return done


class _Zstd:
    def __init__(self, library: Any, level: int) -> None:
        self._with = library.ZstdCompressor(level=level)

    def add(self, data: bytes, *, last: bool) -> bytes:
        done: bytes = self._with.compress(data, self._with.FLUSH_FRAME if last else self._with.FLUSH_BLOCK)
        return done


def _available(levels: dict[str, int]) -> dict[str, Callable[[], Encoder]]:
    """The encodings that this installation has."""
    found: dict[str, Callable[[], Encoder]] = {}
    for name, modules, make in (
        ("zstd", ("compression.zstd", "backports.zstd"), _Zstd),
        ("br", ("brotli",), _Brotli),
    ):
        for module in modules:
            try:
                library = import_module(module)
            except ImportError:
                continue
            found[name] = lambda make=make, library=library, name=name: make(library, levels[name])  # type: ignore[misc]
            break
    found["gzip"] = lambda: _Gzip(levels["gzip"])
    return found


class Compress:
    """Compresses answers of ``minimum_size`` bytes or more, and streams, of types that gain by it.

    ``encodings``: those to use, the best first. Left alone: what is encoded already, parts (206), ``no-transform``.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        minimum_size: int = 1024,
        encodings: Sequence[str] = ("zstd", "br", "gzip"),
        gzip_level: int = 5,
        br_level: int = 4,
        zstd_level: int = 3,
    ) -> None:
        self.app = app
        available = _available({"gzip": gzip_level, "br": br_level, "zstd": zstd_level})
        unknown = set(encodings) - {"zstd", "br", "gzip"}
        if unknown:
            raise ValueError(f"unknown encodings: {', '.join(sorted(unknown))}")
        self._makers = {name: available[name] for name in encodings if name in available}
        self._minimum = minimum_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        chosen = choose_encoding(header(scope, b"accept-encoding") or b"", tuple(self._makers))
        if chosen is None or scope["method"] == "HEAD":
            await self.app(scope, receive, _Varying(send).send)
        else:
            await self.app(scope, receive, _Compressing(send, chosen, self._makers[chosen], self._minimum).send)


def choose_encoding(accepted: bytes, ours: Sequence[str]) -> str | None:
    """The encoding that the client likes best; between equals ours that comes first; None: none of them."""
    weights: dict[str, float] = {}
    for part in accepted.decode("latin-1").split(","):
        name, _, parameters = part.partition(";")
        key, _, value = parameters.strip().partition("=")
        try:
            weights[name.strip().lower()] = float(value) if key.strip().lower() == "q" else 1.0
        except ValueError:
            weights[name.strip().lower()] = 0.0
    anything = weights.get("*", 0.0)
    best = max(ours, key=lambda name: weights.get(name, anything), default=None)
    return best if best is not None and weights.get(best, anything) > 0 else None


def _gains(headers: list[tuple[bytes, bytes]], status: int) -> bool:
    """Whether an answer is worth compressing, and may be."""
    if status < 200 or status in (204, 206, 304):
        return False
    said = {name.lower(): value for name, value in headers}
    if b"content-encoding" in said or b"no-transform" in said.get(b"cache-control", b""):
        return False
    kind = said.get(b"content-type", b"").lower()
    return kind.startswith(_TYPES) or kind.partition(b";")[0].endswith((b"+json", b"+xml"))


def _vary(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Caches must know that another client may get it otherwise."""
    said = b", ".join(value for name, value in headers if name.lower() == b"vary")
    if b"accept-encoding" in said.lower() or b"*" in said:
        return headers
    value = said + b", Accept-Encoding" if said else b"Accept-Encoding"
    return [*(field for field in headers if field[0].lower() != b"vary"), (b"vary", value)]


class _Varying:
    """An answer that is sent as it is, to a client that would not have it compressed."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if _gains(headers, message["status"]):
                message["headers"] = _vary(headers)
        await self._send(message)


class _Compressing:
    """Holds the head back until the first piece of the body says whether it is worth it."""

    def __init__(self, send: Send, name: str, make: Callable[[], Encoder], minimum: int) -> None:
        self._send = send
        self._name = name.encode()
        self._make = make
        self._minimum = minimum
        self._start: Message | None = None
        self._encoder: Encoder | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if not _gains(headers, message["status"]):
                await self._send(message)
                return
            self._start = {**message, "headers": _vary(headers)}
            return
        if message["type"] != "http.response.body":  # trailers, or a file that the server sends by itself
            if self._start is not None:
                start, self._start = self._start, None
                await self._send(start)
            await self._send(message)
            return
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        if self._start is not None:
            start, self._start = self._start, None
            if more or len(body) >= self._minimum:
                self._encoder = self._make()
                start["headers"] = self._encoded(start["headers"])
            if self._encoder is not None and not more:
                body = self._encoder.add(body, last=True)
                self._encoder = None
                start["headers"].append((b"content-length", b"%d" % len(body)))
            await self._send(start)
        if self._encoder is not None:
            body = self._encoder.add(body, last=not more) if body or not more else b""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _encoded(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Another representation: no length yet, no byte ranges, and no strong ETag in common (RFC 9110 §8.8.3)."""
        kept = []
        for name, value in headers:
            lower = name.lower()
            if lower == b"etag" and not value.startswith(b"W/"):
                value = b"W/" + value
            if lower not in (b"content-length", b"accept-ranges"):
                kept.append((name, value))
        return [*kept, (b"content-encoding", self._name)]
