"""The calling end: a call goes through the backend of its deployment, as a request from the proxy does.

So it has the same choice of replicas, line, limits, retries and cancellation. What comes back becomes a value, or an
exception.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from serveconf.figures import Histogram, new_histogram
from serveconf.handles.calls import Call
from serveconf.handles.directory import Directory
from serveconf.handles.errors import (
    BackPressureError,
    CallFailed,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaLost,
)
from serveconf.handles.parcels import pack
from serveconf.handles.response import resolved
from serveconf.handles.traced import run_traced
from serveconf.handles.wire_form import ERROR, ITEM, VALUE, in_pieces, open_item, scope_of
from serveconf.proxy.affinity import wish_for
from serveconf.proxy.call import ResponseCut
from serveconf.proxy.tally import TRAIL, Reason, Trail
from serveconf.wire import StreamLost

Send = Callable[[dict[str, Any]], Awaitable[None]]


class WireCaller:
    """Implements ``Caller`` on a directory's connections. ``loop``: the one that they live on."""

    def __init__(self, directory: Directory, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.directory = directory
        self.loop = loop or asyncio.get_running_loop()
        self.durations: dict[str, Histogram] = {}  # of calls, also of those that failed, by "stack/deployment"

    async def call(self, call: Call) -> Any:
        """The result."""
        answer = _Answer()
        await self._run(call, answer.send)
        return answer.value()

    async def stream(self, call: Call, give: Callable[[Any], Awaitable[None]]) -> None:
        """Hand on each result as it comes. The other end is held up while ``give`` waits."""
        answer = _StreamedAnswer(give)
        await self._run(call, answer.send)
        answer.raise_error()

    async def _run(self, call: Call, send: Send) -> None:
        began = time.perf_counter()
        try:
            await (self._try(call, send) if call.span is None else run_traced(call.span, lambda: self._try(call, send)))
        finally:
            key = f"{call.target.stack}/{call.target.deployment}"
            found = self.durations.get(key) or self.durations.setdefault(key, new_histogram())
            found.observe(time.perf_counter() - began)

    async def _try(self, call: Call, send: Send) -> None:
        args, kwargs = await resolved(call)
        head, buffers = pack((args, kwargs))
        pieces = in_pieces(head, buffers)
        generation = call.generation or self.directory.generation
        scope = scope_of(call, len(head) + sum(buffer.nbytes for buffer in buffers), generation)
        wish = wish_for(call.options.multiplexed_model_id.encode(), call.options.session_id.encode())
        while True:
            trail = scope[TRAIL] = Trail(0.0, span=call.span)
            backend = await self.directory.find(call.target, generation)
            watched = _Watched(send)
            try:
                await backend(scope, _receiving(pieces), watched.send, wish)
            except (ResponseCut, StreamLost) as error:
                raise ReplicaLost(f"{call.target.deployment} did not finish its answer") from error
            if watched.status == 200:
                return
            if (
                trail.reason != Reason.REPLICA_FULL
            ):  # else no replica took it, and it was too large to be kept for another
                raise _error(call, trail.reason, watched)


class _Watched:
    """Lets a replica's own answer through, and keeps what the backend itself has to say."""

    def __init__(self, send: Send) -> None:
        self.status = 0
        self.text = b""
        self._send = send

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        if self.status == 200:
            await self._send(message)
        else:
            self.text += message.get("body", b"")


class _Answer:
    """One item, collected."""

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._filled = 0

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] != "http.response.body":
            return
        body, more = message["body"], message["more_body"]
        if not self._filled and not more:
            self._data = body if type(body) is bytes else bytearray(body)  # a shared slot is given back at once
            return
        size = len(body)
        if not self._filled:
            _, length = ITEM.unpack_from(body)
            self._data = bytearray(ITEM.size + length)
        self._data[self._filled : self._filled + size] = body  # type: ignore[index]
        self._filled += size

    def value(self) -> Any:
        kind, _ = ITEM.unpack_from(self._data)
        return open_item(kind, memoryview(self._data)[ITEM.size :])


class _StreamedAnswer:
    """Items as they come. An error is the last of them."""

    def __init__(self, give: Callable[[Any], Awaitable[None]]) -> None:
        self._give = give
        self._rest = bytearray()
        self._error: bytes | None = None

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] != "http.response.body":
            return
        self._rest += message["body"]
        for kind, parcel in self._whole():
            if kind == VALUE:
                await self._give(open_item(kind, parcel))
            else:
                self._error = parcel

    def _whole(self) -> Iterator[tuple[int, bytes]]:
        while len(self._rest) >= ITEM.size:
            kind, length = ITEM.unpack_from(self._rest)
            if len(self._rest) < ITEM.size + length:
                return
            parcel = bytes(memoryview(self._rest)[ITEM.size : ITEM.size + length])
            del self._rest[: ITEM.size + length]
            yield kind, parcel

    def raise_error(self) -> None:
        if self._error is not None:
            open_item(ERROR, self._error)


def _receiving(pieces: list[bytes | memoryview]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """ASGI receive of a call's body; whoever calls never leaves but by being cancelled."""
    left = iter(enumerate(pieces, 1))

    async def receive() -> dict[str, Any]:
        for number, piece in left:
            return {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        await asyncio.get_running_loop().create_future()
        raise AssertionError("never")

    return receive


def _error(call: Call, reason: str, answer: _Watched) -> Exception:
    name = call.target.deployment
    match reason:
        case Reason.QUEUE_FULL:
            return BackPressureError(f"too many calls wait for {name}")
        case Reason.NO_REPLICA:
            return DeploymentUnavailableError(f"{name} has no replica that is ready")
        case Reason.TIMEOUT:
            return TimeoutError(f"{name} gave no result within its request_timeout_s")
        case Reason.REPLICA_LOST:
            return ReplicaLost(f"the replica of {name} died before it answered")
        case Reason.FAILED | "":
            return CallFailed(f"the call of {name} ended without a result")
    return RayServeException(answer.text.decode(errors="replace").strip() or f"the call of {name} failed: {reason}")
