"""A PEM file → when the certificate in it ends. ``proxy/tls`` reads it along with the certificate, for ``/metrics``.

The ``ssl`` module tells this of a peer's certificate alone, so the five fields that stand before it are stepped over here.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

_FIRST = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17  # tags


def ends_at(certfile: str) -> float | None:
    """``notAfter`` of the first certificate, the server's own (RFC 5280 §4.1), in seconds since the epoch.

    None where it cannot be found: whether the file can be served is OpenSSL's to say.
    """
    try:
        first = _FIRST.search(Path(certfile).read_bytes())
        return _not_after(ssl.PEM_cert_to_DER_cert(first.group().decode())) if first else None
    except (OSError, ValueError, IndexError):
        return None


def _not_after(der: bytes) -> float:
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # its tbsCertificate
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        at = end
    for _field in ("serialNumber", "signature", "issuer"):
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at)  # validity
    _, _, at = _element(der, at)  # notBefore
    tag, begin, end = _element(der, at)
    text = der[begin:end].decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year, 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Its tag, and where its content begins and ends."""
    tag, length, begin = der[at], der[at + 1], at + 2
    if length >= 0x80:  # the long form: so many bytes hold it
        begin += length - 0x80
        length = int.from_bytes(der[at + 2 : begin])
    return tag, begin, begin + length
