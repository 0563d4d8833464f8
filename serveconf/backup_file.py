"""A backup as one file: the stacks with their revisions, and the code packages that these name.

A line that says what it is, the digest of what follows, then MessagePack. ``backup`` writes it, ``restore`` reads it; the
controller makes and takes the parts. Nothing in it is believed before its digest was checked.
"""

from __future__ import annotations

import hashlib

import msgspec

from serveconf.errors import AuthorError

FORMAT = 1
MAGIC = b"serveconf backup "


class BadBackup(AuthorError):
    """The file is no backup, or not all of one."""

    code = "bad_backup"


class SavedStack(msgspec.Struct, frozen=True, kw_only=True):
    """One stack: the revision that serves, and the history, each as the ledger keeps it."""

    name: str
    current: int
    pinned: bool = False
    revisions: dict[int, bytes] = {}
    secret: bool = False  # a value in it came from a variable


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """All that was applied. ``serveconf``: the version that wrote it."""

    serveconf: str
    stacks: tuple[SavedStack, ...] = ()
    code: dict[str, bytes] = {}  # packages by their digest


def encode_backup(backup: Backup) -> bytes:
    """The file's content."""
    body = msgspec.msgpack.encode(backup)
    return b"%s%d\n%s\n%s" % (MAGIC, FORMAT, hashlib.sha256(body).hexdigest().encode(), body)


def decode_backup(data: bytes) -> Backup:
    """The backup from a file's content. Raises BadBackup on what is none, is damaged, or was written by a newer serveconf."""
    first, _, rest = data.partition(b"\n")
    number = first.removeprefix(MAGIC)
    if not first.startswith(MAGIC) or not number.isdigit():
        raise BadBackup("this is no backup of serveconf", hint="'serveconf backup FILE' writes one")
    known = (b"%d" % version for version in range(1, FORMAT + 1))
    if number.lstrip(b"0") not in known:  # as text: it may be longer than int() takes
        raise BadBackup("the backup was written by a newer serveconf", hint="use that version, or a newer one")
    digest, _, body = rest.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise BadBackup("the backup is damaged: it is not what was written", hint="take another one")
    try:
        return msgspec.msgpack.decode(body, type=Backup)
    except msgspec.MsgspecError as error:
        raise BadBackup(f"the backup can't be read: {error}") from error
