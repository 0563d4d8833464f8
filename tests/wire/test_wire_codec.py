"""The codec: what goes in comes out, and garbage is a ProtocolError and nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.wire.frames import (
    Accept,
    Body,
    Broken,
    Cancel,
    Close,
    Credit,
    Cut,
    End,
    FrameTooLarge,
    Free,
    Limits,
    Memory,
    Message,
    Models,
    Open,
    ProtocolError,
    Refused,
    Reply,
    Room,
    decode,
    encode,
    encode_each,
)

LIMITS = Limits()
numbers = st.integers(1, 2**53)
counts = st.integers(0, 2**53)
data = st.binary(max_size=200)
headers = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5)
text = st.text(st.characters(codec="utf-8"), max_size=20)
address = st.none() | st.tuples(text, st.integers(0, 65535))
frames = st.one_of(
    st.builds(
        Open,
        numbers,
        st.booleans(),
        text,
        text,
        text,
        text,
        st.none() | data,
        data,
        text,
        headers,
        address,
        address,
        st.lists(text, max_size=3),
        st.booleans(),
        data,
        st.booleans(),
        st.booleans(),
    ),
    st.builds(Body, numbers, data, st.booleans(), st.booleans(), counts),
    st.builds(Credit, numbers, counts),
    st.builds(Cancel, numbers),
    st.builds(Message, numbers, data, st.booleans(), st.booleans()),
    st.builds(Close, numbers, st.integers(1000, 4999), text),
    st.builds(Reply, numbers, st.integers(100, 599), headers, data, st.booleans(), st.booleans(), counts),
    st.builds(Accept, numbers, st.none() | text, headers),
    st.builds(Cut, numbers),
    st.builds(Refused, numbers, st.booleans(), counts),
    st.builds(End, numbers, counts),
    st.builds(Room, numbers, counts),
    st.builds(Memory, numbers, counts, counts, counts, counts),
    st.builds(Free, numbers, st.lists(counts, max_size=3)),
    st.builds(Models, numbers, st.lists(data, max_size=3), st.lists(data, max_size=3)),
)


@given(st.lists(frames, max_size=6))
def test_frames_come_out_as_they_went_in(batch: list) -> None:
    encoded = encode(batch, LIMITS)
    assert int.from_bytes(encoded[:4], "big") == len(encoded) - 4
    assert decode(memoryview(encoded)[4:], LIMITS) == batch


@given(st.binary(max_size=500))
def test_garbage_is_a_protocol_error(garbage: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(memoryview(garbage), LIMITS)


@given(st.lists(frames, min_size=1, max_size=3), st.data())
def test_a_changed_byte_is_other_frames_or_a_protocol_error(batch: list, choice: st.DataObject) -> None:
    encoded = bytearray(encode(batch, LIMITS)[4:])
    place = choice.draw(st.integers(0, len(encoded) - 1))
    encoded[place] = choice.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode(memoryview(bytes(encoded)), LIMITS)


@pytest.mark.parametrize(
    "bad",
    [
        b"\xdd\xff\xff\xff\xff\x93",  # an array that claims four billion frames
        b"\x91" * 100_000,  # nesting
        b"\x91\x93\x02\x01\xc6\xff\xff\xff\xff",  # bytes that claim four gigabytes
        b"\x91\x92\x04\x00",  # stream 0
        b"\x91\x91\x04",  # no stream
        b"\x91\x90",
    ],
)
def test_hostile_sizes_are_protocol_errors(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(memoryview(bad), LIMITS)


def test_a_frame_that_is_none_is_marked_and_the_others_are_read() -> None:
    bad = [
        Reply(1, 200, [(b"a", b"b")] * 11),
        Accept(2, b"a", []),  # type: ignore[arg-type]
        Close(3, 999),
        End(4, 0),
        Body(5, "text"),  # type: ignore[arg-type]
    ]
    read = decode(memoryview(encode([*bad, End(6, 0)], LIMITS))[4:], Limits(max_headers=10))
    assert [type(frame) for frame in read] == [Broken, Broken, Broken, End, Broken, End]
    assert [frame.stream for frame in read] == [1, 2, 3, 4, 5, 6]


def test_a_body_that_is_none_and_announces_raw_data_ends_the_connection() -> None:
    with pytest.raises(ProtocolError):
        decode(memoryview(encode([Body(1, "text", raw=5)], LIMITS))[4:], LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize("slot", [0, 1])
def test_raw_data_is_announced_by_the_last_frame_alone(slot: int) -> None:
    with pytest.raises(ProtocolError):
        decode(memoryview(encode([Body(1, b"", raw=5, slot=slot), Cancel(2)], LIMITS))[4:], LIMITS)


def test_one_unsendable_frame_does_not_take_the_others_with_it() -> None:
    small = Limits(max_batch_bytes=100)
    batch = [Cancel(1), Reply(2, 200, [(b"a", b"b" * 200)]), Close(3, 1000, "\ud800"), Cancel(4)]
    with pytest.raises(FrameTooLarge):
        encode(batch[:2], small)
    sent = [(frame.stream, type(encoded) is bytes) for frame, encoded in encode_each(batch, small)]
    assert sent == [(1, True), (2, False), (3, False), (4, True)]
