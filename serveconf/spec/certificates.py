"""The TLS files that a spec names, as far as they lie on this machine: whether a proxy could serve HTTPS with them.

``load`` calls it. A file that is not here may be where the proxies are, so only one that is named relative to the spec is missed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from serveconf.spec.rules import Finding

_FILES = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")


def check_certificates(options: Any, folder: Path) -> Iterator[Finding]:
    """What of ``http_options`` no TLS server could start with. ``folder``: where relative paths start."""
    if not isinstance(options, dict) or not (options.get("ssl_certfile") and options.get("ssl_keyfile")):
        return  # one without the other is a contradiction, which is told in itself (``rules``)
    here: dict[str, Path] = {}
    for key in _FILES:
        name = options.get(key)
        if not isinstance(name, str) or not name or "\0" in name:
            continue
        file = folder / name
        if _is_readable(file):
            here[key] = file
        elif not Path(name).is_absolute() and not os.path.lexists(file):
            hint = "it is relative to the spec's folder, and each node with a proxy needs it"
            yield _finding(key, "there is no such file here", hint, severity="warning")
    wrong = [key for key in ("ssl_certfile", "ssl_ca_certs") if key in here and not _holds_certificates(here[key])]
    for key in wrong:
        yield _finding(key, "holds no certificate that could be read", "name a PEM file")
    password = options.get("ssl_keyfile_password")
    if {"ssl_certfile", "ssl_keyfile"} <= here.keys() and "ssl_certfile" not in wrong and _is_text(password):
        yield from _key(here["ssl_certfile"], here["ssl_keyfile"], password or "")


def _key(certificate: Path, key: Path, password: str) -> Iterator[Finding]:
    """The key can be read, with its password where it is encrypted, and is the certificate's."""
    import ssl  # it takes 20 ms, which most specs need not wait for

    encrypted = False

    def tell() -> str:
        nonlocal encrypted
        encrypted = True
        return password

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=tell)
    except (OSError, ValueError) as error:
        if encrypted and not password:
            hint = "set ssl_keyfile_password: ${KEY_PASSWORD}"
            yield _finding("ssl_keyfile", "the key is encrypted, and there is no password for it", hint)
        elif encrypted:
            yield _finding("ssl_keyfile_password", "does not open the key", "is it the password of this key?")
        elif getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            yield _finding("ssl_keyfile", "is not the key of the certificate", "name the two that belong together")
        else:
            yield _finding("ssl_keyfile", "holds no key that could be read", "name a PEM file")


def _holds_certificates(file: Path) -> bool:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(file)
    except OSError:
        return False
    return True


def _is_readable(file: Path) -> bool:
    """A regular file that this user may read: what only the proxies' user may is theirs to judge."""
    return os.path.isfile(file) and os.access(file, os.R_OK)


def _is_text(value: Any) -> TypeGuard[str | None]:
    """What is neither is reported elsewhere."""
    return value is None or isinstance(value, str)


def _finding(key: str, message: str, hint: str, severity: str = "error") -> Finding:
    return Finding(path=f"http_options.{key}", message=message, code="tls", hint=hint, severity=severity)
