"""What RFC 9110 and RFC 9112 ask of a message beyond what the parser (llhttp) checks, as small tables and functions.

The protocol calls them on the request path, so whatever can be remembered is: a host or a header name that was found
good once is a look-up from then on. The memories are bounded, since a client chooses what goes in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from random import Random

from serveconf.routing import Front

_MEMORY = 2048


class Refused(Exception):
    """A request that the edge will not pass on: the status and the sentence of its answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}

# RFC 9110 §7.6.1: meant for one connection only, so they end here, in both directions.
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)

# A Connection header may name further fields that end here, but not these: a client could else take away
# what routing, authentication or an outer proxy's word on it stands on.
END_TO_END = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"cookie",
        b"forwarded",
        b"host",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)


def tokens(value: bytes) -> set[bytes]:
    """The members of a comma-separated list, in lower case."""
    return {token for part in value.split(b",") if (token := part.strip().lower())}


_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?"
)
_good_hosts: set[bytes] = set()


def check_host(host: bytes | None, http_version: str) -> None:
    """One host, well-formed and not empty; HTTP/1.0 may leave it out (RFC 9110 §7.2, RFC 9112 §3.2). Raises Refused."""
    if host in _good_hosts:
        return
    if host is None:
        if http_version == "1.0":
            return
        raise Refused(400, "The Host header is missing")
    if len(host) > 512 or not _HOST.fullmatch(host):
        raise Refused(400, "The Host header is malformed")
    if len(_good_hosts) >= _MEMORY:
        _good_hosts.clear()
    _good_hosts.add(host)


def check_codings(value: bytes, *, is_second: bool) -> None:
    """A Transfer-Encoding: chunked, once and last (RFC 9112 §6.1, §7); no other is spoken here. Raises Refused."""
    codings = [coding.strip().lower() for coding in value.split(b",")]
    if is_second or codings.count(b"chunked") != 1 or codings[-1] != b"chunked":
        raise Refused(400, "The Transfer-Encoding is malformed")
    if len(codings) > 1:
        raise Refused(501, "Only the transfer coding chunked is supported")


def check_size(target: bytes, headers: Iterable[tuple[bytes, bytes]], front: Front) -> None:
    """The head of a request, of whichever version of HTTP, against the front's limits. Raises Refused."""
    if len(target) > front.max_request_target_bytes:
        raise Refused(414, "The request target is too long")
    count = size = largest = 0
    for name, value in headers:
        field = len(name) + len(value)
        count += 1
        size += field + 4
        if field > largest:
            largest = field
    if (
        count > front.max_request_fields
        or largest > front.max_request_field_bytes
        or size + len(target) > front.max_request_head_bytes
    ):
        raise Refused(431, "The request header fields are too large or too many")


_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_good_names: dict[bytes, bytes] = {}


def field_name(name: bytes) -> bytes:
    """The name of a header field in lower case. Raises ValueError if it is no token (RFC 9110 §5.1)."""
    found = _good_names.get(name)
    if found is not None:
        return found
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header field")
    if len(_good_names) >= _MEMORY:
        _good_names.clear()
    lower = _good_names[name] = name.lower()
    return lower


_LINE_END = re.compile(rb"[\r\n\0]")


def check_fields(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Header fields that one message may have. Raises ValueError for a name that is none, or a line end in a value."""
    for name, value in fields:
        field_name(name)
        if _LINE_END.search(value):
            raise ValueError("a header field holds a line end or a NUL")


def is_injected(head: bytes, lines: int) -> bool:
    """Whether a head of so many lines holds more line ends than its own: a CR, LF or NUL within a value (RFC 9110 §5.5)."""
    return head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head


_random = Random()  # not the module's own: user code that seeds that one would make every proxy give the same ids


def make_request_id() -> bytes:
    """A uuid4 as text."""
    digits = b"%032x" % _random.getrandbits(128)
    variant = b"89ab"[digits[16] & 3]
    return b"%b-%b-4%b-%c%b-%b" % (digits[:8], digits[8:12], digits[13:16], variant, digits[17:20], digits[20:])


def is_request_id(value: bytes) -> bool:
    """Whether a client's X-Request-ID may be taken over: 1 to 128 visible ASCII characters."""
    return 0 < len(value) <= 128 and b" " not in value and value.isascii() and value.decode("ascii").isprintable()
