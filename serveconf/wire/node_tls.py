"""TLS between nodes, with the certificates that Ray itself is given there: where Ray's traffic is encrypted ours is too.

RAY_USE_TLS, RAY_TLS_SERVER_CERT, RAY_TLS_SERVER_KEY and RAY_TLS_CA_CERT, as Ray has them: each node has one certificate, for
both directions, and each end must show one that the authority has signed, in the name of its address. That both know the
cluster's secret is proved inside, as without TLS. Files that were renewed count from the next connection on.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from serveconf.errors import OperatorError

log = logging.getLogger("serveconf.wire")

TLS = "tls:"  # begins the address of who wants it
USE = "RAY_USE_TLS"
VARIABLES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")


@dataclass(frozen=True, kw_only=True)
class NodeTls:
    """Paths of PEM files: this node's certificate, its key, and the authority of all."""

    cert: str
    key: str
    authority: str

    def client(self) -> ssl.SSLContext:
        """For one connection to another node. Raises OperatorError where the files can't be used."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def server(self) -> ssl.SSLContext:
        """For a listener. Raises OperatorError where the files can't be used."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        newest, seen = context, self._stamp()

        def hand_over(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
            nonlocal newest, seen
            if (stamp := self._stamp()) != seen:
                try:
                    newest, seen = self._context(ssl.PROTOCOL_TLS_SERVER), stamp
                except OperatorError as error:  # one file is written before the other; the next handshake looks again
                    log.warning("Ray's changed certificate cannot be used yet: %s", error.message)
            connection.context = newest

        context.sni_callback = hand_over  # called for every handshake
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= (
            ssl.OP_NO_TICKET
        )  # a session that is resumed would be believed for what was trusted when it began
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
            context.load_verify_locations(self.authority)
        except (OSError, ValueError) as error:
            raise OperatorError(
                f"frames between nodes are encrypted with Ray's certificates, and those can't be used: {error}",
                hint=f"see {', '.join(VARIABLES)} of this node's Ray",
                code="tls",
            ) from error
        return context

    def _stamp(self) -> tuple[float, ...]:
        return tuple(os.stat(path).st_mtime if os.path.exists(path) else 0.0 for path in self._files())

    def _files(self) -> tuple[str, str, str]:
        return self.cert, self.key, self.authority


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL would ask a terminal


def node_tls(environ: Mapping[str, str]) -> NodeTls | None:
    """As Ray's variables say; None: nothing is encrypted. Raises OperatorError where a variable is missing, as Ray does."""
    if environ.get(USE, "").lower() not in ("1", "true"):
        return None
    missing = [name for name in VARIABLES if not environ.get(name)]
    if missing:
        raise OperatorError(f"{USE} is set, and {', '.join(missing)} is not", hint="Ray wants all of them", code="tls")
    cert, key, authority = (environ[name] for name in VARIABLES)
    return NodeTls(cert=cert, key=key, authority=authority)
