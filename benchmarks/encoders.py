"""What it costs to turn a request's and an answer's frame into bytes and back, by encoder.

    python benchmarks/encoders.py

The frames are those of a small request: eight headers in, four out. ``msgspec`` is what ``serveconf.wire.frames`` does:
declared fields, every one checked while decoding. ``msgpack`` packs the same values as a plain list and checks nothing,
and is left out where it is not installed. ``struct`` is packed by hand and checks lengths only.
"""

from __future__ import annotations

import struct
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from serveconf.wire.frames import DEFAULT_LIMITS, Open, Reply, decode, encode

HEADERS_IN = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-US,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"cookie", b"session=0123456789abcdef0123456789abcdef"),
    (b"connection", b"keep-alive"),
    (b"x-request-id", b"8e2c4f5a-9d1b-4c3e-8f7a-1b2c3d4e5f60"),
]
HEADERS_OUT = [
    (b"content-length", b"19"),
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"vary", b"accept-encoding"),
]
REQUEST = Open(
    1, False, "GET", "http", "1.1", "/a/b", b"/a/b", b"q=1", "/a", HEADERS_IN, ("10.0.0.1", 50000), ("127.0.0.1", 8000)
)
ANSWER = Reply(1, 200, HEADERS_OUT, b'{"message":"hello"}', more=False, done=True)


def blobs(*values: bytes) -> bytes:
    """Length and bytes, for each."""
    return b"".join([len(value).to_bytes(4, "big") + value for value in values])


def unblob(data: bytes, start: int, count: int) -> tuple[list[bytes], int]:
    """What ``blobs`` packed."""
    values = []
    for _ in range(count):
        size = int.from_bytes(data[start : start + 4], "big")
        values.append(data[start + 4 : start + 4 + size])
        start += 4 + size
    return values, start


def pack_by_hand(frame: Any) -> bytes:
    """The variable fields of a frame as counted blobs behind a fixed head."""
    flat = [part for pair in frame.headers for part in pair]
    if isinstance(frame, Reply):
        return struct.pack("!BQHBB", 7, frame.stream, frame.status, frame.more, len(frame.headers)) + blobs(
            frame.body, *flat
        )
    texts = (
        frame.method,
        frame.scheme,
        frame.http_version,
        frame.path,
        frame.root_path,
        frame.client[0],
        frame.server[0],
    )
    head = struct.pack("!BQHHB", 1, frame.stream, frame.client[1], frame.server[1], len(frame.headers))
    return head + blobs(frame.raw_path, frame.query_string, frame.body, *[text.encode() for text in texts], *flat)


def unpack_by_hand(data: bytes) -> tuple[Any, ...]:
    """The values of ``pack_by_hand``."""
    if data[0] == 7:
        head = struct.unpack_from("!BQHBB", data)
        values, _ = unblob(data, 13, 1 + 2 * head[4])
        return (*head, values[0], list(zip(values[1::2], values[2::2], strict=True)))
    head = struct.unpack_from("!BQHHB", data)
    values, _ = unblob(data, 14, 10 + 2 * head[4])
    texts = [value.decode() for value in values[3:10]]
    return (*head, *values[:3], *texts, list(zip(values[10::2], values[11::2], strict=True)))


def encoders() -> dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]:
    """Name -> encode, decode."""
    found: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
        "msgspec, checked": (
            lambda frame: encode([frame], DEFAULT_LIMITS),
            lambda data: decode(memoryview(data)[4:], DEFAULT_LIMITS),
        ),
        "struct, by hand": (pack_by_hand, unpack_by_hand),
    }
    try:
        import msgpack
    except ImportError:
        print("msgpack is not installed: left out")
    else:
        pack = msgpack.Packer().pack
        found["msgpack, unchecked"] = (
            lambda frame: pack(msgspec.structs.astuple(frame)),
            lambda data: msgpack.unpackb(data, use_list=False),
        )
    return found


def microseconds(run: Callable[[], Any]) -> float:
    """Of one call: the best of five rounds."""
    return min(timeit.repeat(run, number=20_000, repeat=5)) / 20_000 * 1e6


def main() -> None:
    print(
        f"{'us per frame':20}{'request':>18}{'answer':>18}\n{'':20}{'encode  decode':>18}{'encode  decode':>18}   bytes"
    )
    for name, (encode_one, decode_one) in encoders().items():
        cells, sizes = [], []
        for frame in (REQUEST, ANSWER):
            data = encode_one(frame)
            sizes.append(str(len(data)))
            out = microseconds(partial(encode_one, frame))
            back = microseconds(partial(decode_one, data))
            cells.append(f"{out:.2f}    {back:.2f}")
        print(f"{name:20}{cells[0]:>18}{cells[1]:>18}   {' / '.join(sizes)}")


if __name__ == "__main__":
    main()
