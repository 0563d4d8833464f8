"""What an application answers, checked before it is sent: RuntimeError for what no answer can be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from serveconf.wire.frames import Headers, Limits
from serveconf.wire.stream import as_bytes

_BAD_NAME = re.compile(rb'[\x00-\x20\x7f-\xff()<>@,;:\\\[\]={}"/?]')
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MEMORY = 1_000
_LENGTH_DIGITS = 18  # of a Content-Length: more bytes than that nobody sends, and a number of any length can't be read
_good_names: set[bytes] = set()  # checked before; the application chooses them, and uses the same ones again


def as_status(status: Any) -> int:
    """A final status; 1xx is none, it announces one (RFC 9110 §15.2)."""
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
    return int(status)


def check_number(headers: Headers, limits: Limits) -> None:
    """RuntimeError for more of them than one message may have; ``decode`` at the other end takes no more."""
    if len(headers) > limits.max_headers:
        raise RuntimeError(f"More than {limits.max_headers} header fields.")


def checked_headers(headers: Iterable[Iterable[bytes]], limits: Limits) -> tuple[Headers, int | None]:
    """The application's headers as they go over the wire, and their content-length. RuntimeError for bad ones."""
    checked: Headers = []
    length = None
    for name, value in headers:
        if type(name) is not bytes or type(value) is not bytes:
            name, value = as_bytes(name), as_bytes(value)
        if name not in _good_names:
            _check_name(name)
        if _BAD_VALUE.search(value):
            raise RuntimeError("Invalid HTTP header value.")
        checked.append((name, value))
        if len(name) == 14 and name.lower() == b"content-length":
            if not value.isdigit() or len(value) > _LENGTH_DIGITS:
                raise RuntimeError("Invalid Content-Length.")
            length = int(value)
    check_number(checked, limits)
    return checked, length


def _check_name(name: bytes) -> None:
    if not name or _BAD_NAME.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    if len(_good_names) < _MEMORY:
        _good_names.add(name)
