"""A backup's file: what was written is read, and nothing else is taken for one."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.backup_file import Backup, BadBackup, SavedStack, decode_backup, encode_backup

STACKS = st.builds(
    SavedStack,
    name=st.text(min_size=1, max_size=10),
    current=st.integers(0, 2**40),
    pinned=st.booleans(),
    revisions=st.dictionaries(st.integers(0, 2**40), st.binary(max_size=20), max_size=3),
    secret=st.booleans(),
)
BACKUPS = st.builds(
    Backup,
    serveconf=st.text(max_size=10),
    stacks=st.lists(STACKS, max_size=3).map(tuple),
    code=st.dictionaries(st.text(max_size=8), st.binary(max_size=30), max_size=3),
)
WHOLE = encode_backup(Backup(serveconf="1", stacks=(SavedStack(name="shop", current=1, revisions={1: b"r"}),)))


def as_file(body: bytes, number: bytes = b"1") -> bytes:
    return b"serveconf backup %s\n%s\n%s" % (number, hashlib.sha256(body).hexdigest().encode(), body)


@given(BACKUPS)
def test_what_was_saved_comes_back(backup: Backup) -> None:
    assert decode_backup(encode_backup(backup)) == backup


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_in_our_words(data: bytes) -> None:
    with pytest.raises(BadBackup, match="this is no backup of serveconf"):
        decode_backup(data)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_backup_that_was_cut_off_is_none(length: int) -> None:
    with pytest.raises(BadBackup):
        decode_backup(WHOLE[:length])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_one_byte_that_is_another_is_noticed_wherever_it_stands(place: int, change: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] ^= change
    with pytest.raises(BadBackup):
        decode_backup(bytes(damaged))


def test_what_was_added_behind_it_is_noticed() -> None:
    with pytest.raises(BadBackup, match="the backup is damaged"):
        decode_backup(WHOLE + b"\n")


@pytest.mark.parametrize("number", [b"2", b"10", b"0", b"9" * 5000])
def test_a_format_of_another_version_is_not_read(number: bytes) -> None:
    with pytest.raises(BadBackup, match="written by a newer serveconf") as caught:
        decode_backup(as_file(msgspec.msgpack.encode(Backup(serveconf="9")), number))
    assert caught.value.hint == "use that version, or a newer one"


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", msgspec.msgpack.encode([1]), msgspec.msgpack.encode({"serveconf": 1}), msgspec.msgpack.encode({})],
)
def test_a_whole_file_that_says_something_else_is_refused_with_what_is_wrong(body: bytes) -> None:
    with pytest.raises(BadBackup, match="the backup can't be read: "):
        decode_backup(as_file(body))


def test_keys_that_a_later_version_adds_are_passed_over() -> None:
    body = msgspec.msgpack.encode({"serveconf": "2", "stacks": [{"name": "a", "current": 1, "new": 1}], "more": []})
    assert decode_backup(as_file(body)).stacks == (SavedStack(name="a", current=1),)
