"""Which replica a request would rather have than any other: what it wishes for, and whom a hash gives it to.

The hash is rendezvous hashing (Thaler and Ravishankar 1998): key and replica together make a score, and of the replicas
with room the highest one takes the request. So all proxies and callers choose alike without talking; a replica that comes
takes its own share of the keys and moves no other; and where the first one is full or gone, all agree on the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from serveconf.runtime.context import MODEL_ID_HEADER

T = TypeVar("T")

_MASK = (1 << 64) - 1


class Wish(NamedTuple):
    """What a request is for: one of several models, a session that goes on, or both."""

    model: bytes = b""
    session: bytes = b""


def wish_for(model: bytes, session: bytes) -> Wish | None:
    """The wish of a request for this model, in this session; None where there is neither."""
    return Wish(model, session) if model or session else None


def model_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The model that a request is for; empty where it does not say."""
    for name, value in headers:
        if name == MODEL_ID_HEADER:
            return value
    return b""


def hash_of(name: bytes) -> int:
    """64 bits of it, the same ones in every process."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())


def favourite(name: bytes, candidates: Iterable[tuple[int, T]]) -> T:
    """Of those, each with the hash of its own name, the one that this name belongs to."""
    key = hash_of(name)
    return max(candidates, key=lambda one: _score(key ^ one[0]))[1]


def _score(bits: int) -> int:
    bits = (bits ^ bits >> 32) * 0xD6E8FEB86659FD93 & _MASK  # a finalizer as that of splitmix64, with one round less
    bits = (bits ^ bits >> 32) * 0xD6E8FEB86659FD93 & _MASK
    return bits ^ bits >> 32
