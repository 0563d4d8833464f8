"""The head of one request while it is parsed: target and header fields, checked, with what is only the edge's taken out.

A connection has one ``RequestHead`` and begins it anew for every request; llhttp calls ``on_url`` and ``on_header``.
"""

from __future__ import annotations

from collections.abc import Callable

from serveconf.proxy.edge import Edge
from serveconf.proxy.rules import (
    END_TO_END,
    Refused,
    check_codings,
    check_host,
    check_size,
    is_request_id,
    make_request_id,
    tokens,
)


class RequestHead:
    """What is known of a request before its body."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_open = False  # between the first byte of a request and the end of its head
        self._host: bytes | None = None
        self._id_name = edge.request_id_name
        self._forget_specials()

    def _forget_specials(self) -> None:
        """Back to what most requests do not have."""
        self.has_specials = False
        self.length: int | None = None
        self.is_chunked = False
        self.expects_continue = False
        self.upgrade: bytes | None = None
        self.takes_trailers = False
        self.is_forwarded = False
        self._named_hops: set[bytes] = set()
        self._request_id: bytes | None = None

    def begin(self) -> None:
        """A new request."""
        self.is_open = True
        self.url = b""
        self.headers = []
        self._host = None
        self._id_name = self._edge.request_id_name
        if self.has_specials:
            self._forget_specials()

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.is_chunked or bool(self.length)

    @property
    def has_small_body(self) -> bool:
        """Whether its rest is worth a wait: what is whole goes to a replica, and is answered, in one piece.

        Not where the client may wait for us, nor for more than may wait unread anyway.
        """
        return self.length is not None and self.length <= self._edge.unread_bytes and not self.expects_continue

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self.url += url
        if len(self.url) > self._edge.front.max_request_target_bytes:
            raise Refused(414, "The request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; after the head, a trailer field."""
        name = name.lower()
        if name in _SPECIAL or name == self._id_name:
            self._take_special(name, value)
        else:
            self.headers.append((name, value))

    def _take_special(self, name: bytes, value: bytes) -> None:
        """The fields that are the edge's business too, or only the edge's."""
        if not self.is_open:
            self.headers.append((name, value))
            return
        if name == b"host":
            if self._host is not None:
                raise Refused(400, "There is more than one Host header")
            self._host = value
            self.headers.append((name, value))
            return
        self.has_specials = True
        if name == self._id_name:
            self._take_request_id(value)
        elif _SPECIAL[name](self, value):
            self.headers.append((name, value))

    def _take_connection(self, value: bytes) -> bool:
        self._named_hops |= tokens(value)
        return False

    def _take_upgrade(self, value: bytes) -> bool:
        self.upgrade = value.lower()
        return False

    def _take_te(self, value: bytes) -> bool:
        self.takes_trailers = b"trailers" in tokens(value)
        return False

    def _take_transfer_encoding(self, value: bytes) -> bool:
        if value.lower() != b"chunked" or self.is_chunked:
            check_codings(value, is_second=self.is_chunked)
        self.is_chunked = True
        return True  # hop-by-hop, but ASGI has no other sign that a body of unknown length follows

    def _take_content_length(self, value: bytes) -> bool:
        self.length = int(value)  # llhttp lets only one number through
        return True

    def _take_expect(self, value: bytes) -> bool:
        if value.lower() != b"100-continue":
            raise Refused(417, "Only 100-continue can be expected")
        self.expects_continue = True
        return True

    def _take_request_id(self, value: bytes) -> None:
        if self._request_id is None and is_request_id(value):
            self._request_id = value

    def _take_forwarded(self, value: bytes) -> bool:
        self.is_forwarded = True
        return True

    def _drop(self, value: bytes) -> bool:
        return False

    def close(self, version: str, method: str) -> tuple[bytes, bytes, bytes]:
        """The head is whole: path, query and request id. ``headers`` are what an app may see. Raises Refused."""
        self.is_open = False
        if version != "1.1" and version != "1.0":
            raise Refused(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here")
        if method == "CONNECT":
            raise Refused(501, "CONNECT is not supported")
        check_host(self._host, version)
        path, query = self._split_target(method)
        if self.has_specials:
            self._apply_specials(version)
        if not self._id_name:
            return path, query, b""
        request_id = self._request_id or make_request_id()
        self.headers.append((self._id_name, request_id))
        return path, query, request_id

    def check_size(self) -> None:
        """Raises Refused if the head is larger than the front allows."""
        check_size(self.url, self.headers, self._edge.front)

    def _split_target(self, method: str) -> tuple[bytes, bytes]:
        """Path and query of the request target in each of its forms (RFC 9112 §3.2)."""
        path, _, query = self.url.partition(b"?")
        if b"#" in self.url:
            raise Refused(400, "The request target has a fragment")
        if path.startswith(b"/") or (path == b"*" and method == "OPTIONS"):
            return path, query
        scheme, mark, rest = path.partition(b"://")
        if not mark or scheme.lower() not in (b"http", b"https"):
            raise Refused(400, "The request target is malformed")
        authority, _, path = rest.partition(b"/")
        check_host(authority, "1.1")
        self.headers[:] = [(b"host", authority), *(field for field in self.headers if field[0] != b"host")]  # §3.2.2
        return b"/" + path, query

    def _apply_specials(self, version: str) -> None:
        gone = self._named_hops - END_TO_END
        if gone:
            self.headers[:] = [field for field in self.headers if field[0] not in gone]
        if version != "1.1":
            if self.is_chunked:
                raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")  # RFC 9112 §6.1: the framing is faulty
            self.expects_continue = False
        limit = self._edge.front.max_request_body_bytes
        if limit is not None and self.length is not None and self.length > limit:
            raise Refused(413, "The request body is too large")

    def expect_trailers(self) -> None:
        """From here on fields are trailers: ASGI has no place for them, and taking them for headers would be a hole."""
        self.headers = _Trailers(self._edge.front.max_request_fields)


_SPECIAL: dict[bytes, Callable[[RequestHead, bytes], bool]] = {
    b"host": RequestHead._drop,  # taken before it gets here
    b"connection": RequestHead._take_connection,
    b"upgrade": RequestHead._take_upgrade,
    b"te": RequestHead._take_te,
    b"transfer-encoding": RequestHead._take_transfer_encoding,
    b"content-length": RequestHead._take_content_length,
    b"expect": RequestHead._take_expect,
    b"x-forwarded-for": RequestHead._take_forwarded,
    b"x-forwarded-proto": RequestHead._take_forwarded,
    b"keep-alive": RequestHead._drop,
    b"proxy-connection": RequestHead._drop,
    b"trailer": RequestHead._drop,
}


class _Trailers(list[tuple[bytes, bytes]]):
    """Drops what is appended, up to a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def append(self, field: tuple[bytes, bytes], /) -> None:
        self._left -= 1
        if self._left < 0:
            raise Refused(431, "There are too many trailer fields")
