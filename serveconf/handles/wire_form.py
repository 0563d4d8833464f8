"""How a call goes over the wire: as a request whose HTTP version no client can have, so that none can come in from outside.

The method says whether a stream is wanted, the path which method of the object is called, the body is a parcel of
``(args, kwargs)``. The answer's body is a row of items::

    item := kind (u8: 0 value, 1 error) | size (u64, little-endian) | parcel

One item answers a call; a stream has as many as the generator yields, and an error only as its last one.
"""

from __future__ import annotations

import pickle
import struct
import traceback
from collections.abc import Sequence
from typing import Any

from serveconf.handles.calls import Call
from serveconf.handles.errors import CallFailed, RemoteTraceback
from serveconf.handles.parcels import has_buffers, pack, unpack
from serveconf.runtime.context import MODEL_ID_HEADER
from serveconf.tracing import CARRIED
from serveconf.wire import GENERATION

HTTP_VERSION = "handle"
CALL, STREAM = "CALL", "STREAM"
REQUEST_ID = b"x-request-id"
SESSION_ID = b"x-session-id"
LENGTH = b"content-length"
ITEM = struct.Struct("<BQ")
VALUE, ERROR = 0, 1
WHOLE_BYTES = 24 << 10  # what is no larger goes in one piece

Headers = list[tuple[bytes, bytes]]


def scope_of(call: Call, length: int, generation: int = 0) -> dict[str, Any]:
    """The ASGI scope of a call whose parcel has this size, and that goes by this table."""
    options = call.options
    headers: Headers = [(LENGTH, b"%d" % length), (REQUEST_ID, call.request_id.encode())]
    if options.multiplexed_model_id:
        headers.append((MODEL_ID_HEADER, options.multiplexed_model_id.encode()))
    if options.session_id:
        headers.append((SESSION_ID, options.session_id.encode()))
    beside: dict[str, Any] = {GENERATION: generation} if generation else {}
    if call.span is not None:
        headers.append((b"traceparent", call.span.traceparent))
        if call.span.trace_state:
            headers.append((b"tracestate", call.span.trace_state.encode()))
        beside["state"] = {CARRIED: call.span.sink.endpoint}
    return {
        **beside,
        "type": "http",
        "http_version": HTTP_VERSION,
        "method": STREAM if options.stream else CALL,
        "scheme": "http",
        "path": options.method_name,
        "raw_path": None,
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
    }


def in_pieces(head: bytes, buffers: Sequence[memoryview]) -> list[bytes | memoryview]:
    """The parcel as few pieces: one where it is small, its buffers uncopied where they are large."""
    if not buffers:
        return [head]
    if len(head) + sum(buffer.nbytes for buffer in buffers) <= WHOLE_BYTES:
        return [b"".join((head, *buffers))]
    return [head, *buffers]


def value_item(value: Any) -> list[bytes | memoryview]:
    """A result, in pieces. Raises CallFailed for what cannot be pickled."""
    head, buffers = pack(value)
    return _item(VALUE, head, buffers)


def error_item(error: BaseException) -> list[bytes | memoryview]:
    """An exception with its traceback, in pieces; where it cannot be pickled, its words."""
    words = "".join(traceback.format_exception_only(error)).strip()
    trace = "".join(traceback.format_exception(error))
    try:
        head, buffers = pack(error)
        pickled: bytes | None = b"".join((head, *buffers))
    except CallFailed:
        pickled = None
    return _item(ERROR, *pack((pickled, words, trace)))


def _item(kind: int, head: bytes, buffers: Sequence[memoryview]) -> list[bytes | memoryview]:
    size = len(head) + sum(buffer.nbytes for buffer in buffers)
    return in_pieces(ITEM.pack(kind, size) + head, buffers)


def open_item(kind: int, parcel: bytes | bytearray | memoryview) -> Any:
    """The value of an item; its exception is raised, with the other process's traceback as its cause."""
    if kind == VALUE:
        if has_buffers(parcel) and memoryview(parcel).readonly:
            parcel = bytearray(parcel)
        return _unpacked(parcel)
    pickled, words, trace = unpack(parcel)
    raise _error(pickled, words) from RemoteTraceback(trace)


def _error(pickled: bytes | None, words: str) -> BaseException:
    if pickled is not None:
        try:
            error = unpack(pickled)
        except Exception:  # noqa: BLE001 - an exception's own code: where it cannot be made again, its words are left
            error = None
        if isinstance(error, Exception):  # any other would end the process that called
            return error
    return CallFailed(words)


def _unpacked(parcel: bytes | bytearray | memoryview) -> Any:
    try:
        return unpack(parcel)
    except (pickle.UnpicklingError, ImportError, AttributeError) as error:
        raise CallFailed(f"the result cannot be made again here: {error}") from error
