"""The server's side of TLS: one context for all connections, whose certificate is read anew when its files change.

Authorities can be added to a context and never taken away. So where clients must show certificates, each handshake is given the
newest context, and no session is resumed: it would be believed for what was trusted when it began.
"""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass, field

from serveconf.errors import OperatorError
from serveconf.proxy.certificate import ends_at

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files, and what the key is encrypted with.

    With ``ca_certs`` a client must show a certificate that one of them has signed.
    """

    certfile: str
    keyfile: str | None = None
    ca_certs: str | None = None
    password: str | None = field(default=None, repr=False)


class Tls:
    """``context`` stays the same object for as long as the server runs; ``ends_at`` is when what it shows does, if known."""

    def __init__(self, files: TlsFiles, *, alpn: tuple[str, ...] = ("http/1.1",)) -> None:
        """Raises OperatorError if the files cannot be used."""
        self._files = files
        self._alpn = alpn
        self._seen = self._stamp()
        try:
            self.context = self._load()
        except (OSError, ValueError) as error:
            raise OperatorError(
                f"the certificate {files.certfile} cannot be used: {error}",
                hint="ssl_certfile and ssl_keyfile are PEM files that belong together, on every node with a proxy; "
                "ssl_keyfile_password opens an encrypted key",
            ) from error
        self.ends_at = ends_at(files.certfile)
        self._newest = self.context
        if files.ca_certs is not None:
            self.context.sni_callback = (
                self._hand_over
            )  # called for every handshake, also where the client names no server

    def _hand_over(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        if self._newest is not context:
            connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load_chain(context)
        if self._files.ca_certs is not None:
            context.load_verify_locations(self._files.ca_certs)
            context.verify_mode = ssl.CERT_REQUIRED
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
        context.set_alpn_protocols(list(self._alpn))
        return context

    def _load_chain(self, context: ssl.SSLContext) -> None:
        # always a password, if only an empty one: without, OpenSSL asks for it at a terminal, and waits there for ever
        context.load_cert_chain(self._files.certfile, self._files.keyfile, password=self._files.password or "")

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        files = (self._files.certfile, self._files.keyfile, self._files.ca_certs)
        return tuple(_stamp(path) for path in files if path is not None)

    def reload_if_changed(self) -> bool:
        """Read the files again if one of them changed since. New connections get what they hold; the open ones go on.

        Files that do not fit each other (one of the two is written before the other) are tried again at the next call.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        try:
            newest = (
                self._load()
            )  # in a context of its own first: a failure halfway would leave the live one without a key
            if self._files.ca_certs is None:
                self._load_chain(self.context)
            else:
                self._newest = newest
        except (OSError, ValueError) as error:
            log.warning(
                "a changed certificate cannot be used yet", extra={"file": self._files.certfile, "why": str(error)}
            )
            return False
        self._seen = stamp
        self.ends_at = ends_at(self._files.certfile)
        log.info("certificate read again", extra={"file": self._files.certfile})
        return True


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
