"""The frame codec: frames in, bytes out, and back. ``Connection`` is its only caller.

After the handshake (``handshake.py``) each direction of a connection is a row of batches, one per loop turn::

    batch  := length (u32, big-endian) | msgpack array of frames | raw bytes    length <= Limits.max_batch_bytes
    frame  := msgpack array [tag, stream, field, field, ...]                    fields in the order of the classes below

Raw bytes are there only if the last frame is a Body whose ``raw`` says how many: large data is copied nowhere. If its
``slot`` is given too, they are in the memory that both ends share, and nothing follows.

    tag  frame    from     meaning
    1    Open     proxy    a request: the ASGI scope and the first piece of its body
    2    Body     both     a piece of an http body; from the replica also: the end of the stream
    3    Credit   both     the receiver has used up this much, as much again may be sent
    4    Cancel   proxy    nobody waits for this stream any more
    5    Message  both     a WebSocket message, or a fragment of one
    6    Close    both     the WebSocket ends
    7    Reply    replica  status and headers, with the first piece of the body
    8    Accept   replica  the WebSocket is accepted
    9    Cut      replica  the application failed, what it began cannot be finished
    10   Refused  replica  the replica did not take the stream; nothing of it was handled
    11   End      replica  the handler has ended, background tasks included
    12   Room     replica  after a refusal: there is room again
    13   Trailers replica  the fields behind the body, where the Reply has announced them
    14   Memory   both     large data may come through this memory from now on (``shared.py``); a proxy's from version 5 on
    15   Free     both     these slots of it may be filled
    16   File     replica  the body is this file of the replica's process (``lent.py``)
    17   Opened   proxy    whether the file could be opened; if not, the body comes in Body frames
    18   Models   replica  it has loaded these models, and let go of those; from version 4 on

Streams are numbered by the proxy, upwards from 1. Every piece of data costs its length plus ``PIECE_COST`` of the
stream's credit (a Reply without a body, or an Open whose body follows, nothing), which starts at ``Limits.window_bytes``
and is given back a quarter of that at a time.
``others`` is the replica's load in band: the streams that it handles for other connections than this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import msgspec

PIECE_COST = 64  # what an empty piece costs, so that a flood of small ones is bounded like a flood of bytes
GRANT_SHIFT = 2  # what was used up is granted again when it is this part of the window: a quarter

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Status = Annotated[int, msgspec.Meta(ge=100, le=599)]
Code = Annotated[int, msgspec.Meta(ge=1000, le=4999)]
Headers: TypeAlias = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Limits:
    """How much one end of a connection takes from the other. Both ends of one connection must agree on the window."""

    max_batch_bytes: int = 1 << 20
    max_headers: int = 10_000
    max_streams: int = 10_000  # open at a time on one connection
    max_message_bytes: int = 64 << 20  # of one WebSocket message
    window_bytes: int = (3 << 19) + 1024  # unread data per stream and direction: a piece and a half
    piece_bytes: int = 1 << 20  # large bodies are cut into pieces of this size, small ones gathered up to it
    inline_bytes: int = 32 << 10  # larger pieces go as raw bytes behind their frame
    handshake_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        """A sender waits until it has credit for a whole piece; what the other end has not granted yet must leave it that."""
        if self.piece_bytes + PIECE_COST + (self.window_bytes >> GRANT_SHIFT) > self.window_bytes:
            raise ValueError("piece_bytes is too large for window_bytes")


DEFAULT_LIMITS = Limits()
LIMITS_BEFORE_5 = Limits(window_bytes=(1 << 20) + 1024, piece_bytes=512 << 10)  # of ends that speak an older version


class ProtocolError(Exception):
    """The other end does not speak this protocol; its connection is closed."""


class StreamError(ProtocolError):
    """What came for one stream cannot be; that stream ends, and nobody else's."""

    def __init__(self, stream: int, why: str) -> None:
        super().__init__(f"stream {stream}: {why}")
        self.stream = stream


class FrameTooLarge(Exception):
    """A single frame, in practice the headers of one request or response, is beyond the limit."""


class Frame(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    """What all frames have: the number of their stream."""

    stream: Number


class Open(Frame, tag=1):
    """A request. ``hold``: send nothing more of its body before the first Credit (``Expect: 100-continue``)."""

    websocket: bool
    method: str
    scheme: str
    http_version: str
    path: str
    raw_path: bytes | None
    query_string: bytes
    root_path: str
    headers: Headers
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    subprotocols: list[str] = []
    denial: bool = False  # the client's end can answer a WebSocket handshake with an http response
    body: bytes = b""
    more: bool = False
    hold: bool = False
    extras: bytes = b""  # what middlewares left in the scope (``carried.py``)
    trailers: bool = False  # the client's end can take them
    files: bool = False  # the client's end can open files of the replica's process


class Body(Frame, tag=2):
    """A piece of a body. ``done``: the handler has ended too. ``raw``: the size of the data that follows the batch.

    Or that is in the memory's ``slot`` (from 1). The receiving end gets raw data as it comes in, in Body frames where
    ``raw`` is the size of ``data``.
    """

    data: bytes
    more: bool = False
    done: bool = False
    others: Count = 0
    raw: Count = 0
    slot: Count = 0


class Credit(Frame, tag=3):
    """``size`` bytes of the data sent so far were used."""

    size: Count


class Cancel(Frame, tag=4):
    """Nobody waits for this stream any more."""


class Message(Frame, tag=5):
    """A WebSocket message; ``more``: it goes on in the next one. Text is cut as bytes and decoded when it is whole."""

    data: bytes
    text: bool
    more: bool = False


class Close(Frame, tag=6):
    """The end of a WebSocket, or of an attempt at one."""

    code: Code
    reason: str = ""


class Reply(Frame, tag=7):
    """The beginning of a response, and often all of it. ``done``: the handler has ended too."""

    status: Status
    headers: Headers
    body: bytes = b""
    more: bool = True
    done: bool = False
    others: Count = 0
    session: bytes = b""  # what the application did to the session (``carried.py``)
    trailers: bool = False  # Trailers end the answer, not the body
    follows: bool = False  # the first piece of the body comes right behind, in a Body


class Accept(Frame, tag=8):
    """The WebSocket is accepted."""

    subprotocol: str | None
    headers: Headers


class Cut(Frame, tag=9):
    """The application failed; what it began cannot be finished."""


class Refused(Frame, tag=10):
    """The replica did not take the stream. ``closing``: nor will it take another one."""

    closing: bool
    others: Count


class End(Frame, tag=11):
    """The handler has ended, background tasks included."""

    others: Count


class Room(Frame, tag=12):
    """A replica that refused a stream of this connection has room again. Its stream number means nothing."""

    others: Count


class Trailers(Frame, tag=13):
    """The fields behind the body."""

    headers: Headers


class Memory(Frame, tag=14):
    """``file`` of the sender's process is memory of ``slots`` equal parts. Its stream number means nothing."""

    file: Count
    inode: Count
    slots: Count
    slot_bytes: Count


class Free(Frame, tag=15):
    """The sender has done with these slots. Its stream number means nothing."""

    slots: list[Count]


class File(Frame, tag=16):
    """The first ``size`` bytes of a file that the replica's process has open as ``file`` are the body."""

    file: Count
    device: int
    inode: int
    size: Count


class Opened(Frame, tag=17):
    """``whole``: the file is open, all of the body is there. Else the replica has to send it."""

    whole: bool


class Models(Frame, tag=18):
    """The replica has, or is loading, the models ``here``, and no longer those ``gone``. Its stream number means nothing.

    The first one, which may be empty, says that the replica has models that requests ask for at all.
    """

    here: list[bytes]
    gone: list[bytes]


class Broken(Frame):
    """Stands where a frame of its stream was that is none. It is never sent."""

    why: str


AnyFrame: TypeAlias = (
    Open
    | Body
    | Credit
    | Cancel
    | Message
    | Close
    | Reply
    | Accept
    | Cut
    | Refused
    | End
    | Room
    | Trailers
    | Memory
    | Free
    | File
    | Opened
    | Models
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[AnyFrame]).decode
_decode_apart = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_one = msgspec.msgpack.Decoder(AnyFrame).decode
_as_number = msgspec.msgpack.Decoder(Number).decode
_as_count = msgspec.msgpack.Decoder(Count).decode

# What an encoder or decoder raises for values that no frame can hold: a number beyond 64 bits, half a surrogate pair,
# what is no bytes, a list that holds itself.
CODEC_ERRORS = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError, MemoryError)


def cost_of(frame: Body) -> int:
    """What it takes of the stream's credit."""
    return (frame.raw or len(frame.data)) + PIECE_COST


def encode(frames: list[AnyFrame], limits: Limits) -> bytes:
    """One batch. FrameTooLarge when it is beyond the limit; see ``encode_each``."""
    payload = _encode(frames)
    size = len(payload)
    if size > limits.max_batch_bytes:
        raise FrameTooLarge(f"{size} bytes")
    return size.to_bytes(4, "big") + payload


def encode_each(frames: list[AnyFrame], limits: Limits) -> Iterator[tuple[AnyFrame, bytes | Exception]]:
    """Every frame as a batch of its own, for when ``encode`` raised; the error where the fault is with that frame."""
    for frame in frames:
        try:
            yield frame, encode([frame], limits)
        except (FrameTooLarge, *CODEC_ERRORS) as error:
            yield frame, error


def decode(payload: memoryview, limits: Limits) -> list[AnyFrame | Broken]:
    """The frames of one batch, without its length; every field is checked.

    ``Broken`` stands for one that is none. ProtocolError where it cannot be told whose it was, or where the next begins.
    """
    frames: list[AnyFrame | Broken]
    try:
        frames = _decode(payload)  # type: ignore[assignment]
    except CODEC_ERRORS as error:
        frames = _decode_each(payload, error)
    for place, frame in enumerate(frames):
        kind = type(frame)
        if kind is Reply or kind is Open or kind is Trailers:
            if len(frame.headers) > limits.max_headers:  # type: ignore[union-attr]
                frames[place] = Broken(frame.stream, f"{len(frame.headers)} headers")  # type: ignore[union-attr]
        elif (
            type(frame) is Body
            and frame.raw
            and (frame is not frames[-1] or frame.data or cost_of(frame) > limits.window_bytes)
        ):
            raise ProtocolError("raw data where none can be")
    return frames


def _decode_each(payload: memoryview, error: Exception) -> list[AnyFrame | Broken]:
    try:
        return [_decode_or_mark(raw) for raw in _decode_apart(payload)]
    except CODEC_ERRORS:
        raise ProtocolError(f"not a batch of frames: {error}") from error


def _decode_or_mark(raw: msgspec.Raw) -> AnyFrame | Broken:
    try:
        return _decode_one(raw)  # type: ignore[no-any-return]
    except CODEC_ERRORS as error:
        fields = _decode_apart(raw)
        if len(fields) < 2:
            raise ProtocolError("a frame of no stream") from error
        tag, stream = _as_number(fields[0]), _as_number(fields[1])
        if tag == _BODY_TAG and len(fields) > _RAW_FIELD and _as_count(fields[_RAW_FIELD]):
            raise ProtocolError("raw data behind a frame that is none") from error
        return Broken(stream, str(error))


_BODY_TAG = Body.__struct_config__.tag
_RAW_FIELD = 1 + Body.__struct_fields__.index("raw")  # behind the tag
