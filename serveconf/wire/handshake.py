"""The first bytes on a connection: both ends prove that they know the cluster's secret, without sending it.

::

    server -> client   magic and version (8) | server nonce (32)
    client -> server   magic and version (8) | client nonce (32) | HMAC-SHA256(secret, "client" + both nonces) (32)
    server -> client   HMAC-SHA256(secret, "server" + both nonces) (32)

It keeps strangers out. It does not encrypt: between nodes the network is trusted as far as Ray itself trusts it.
"""

from __future__ import annotations

import hmac
import secrets

from serveconf.wire.frames import ProtocolError

MAGIC = b"scwire\x00\x03"
NONCE_SIZE = 32
PROOF_SIZE = 32
GREETING_SIZE = len(MAGIC) + NONCE_SIZE
ANSWER_SIZE = GREETING_SIZE + PROOF_SIZE


def _proof(secret: bytes, role: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    return hmac.digest(secret, role + server_nonce + client_nonce, "sha256")


def _check_magic(data: bytes) -> None:
    if data[: len(MAGIC)] != MAGIC:
        raise ProtocolError("the other end speaks another protocol or version")


class ServerHandshake:
    """The replica's part: ``hello`` goes out first, then ``feed`` takes what comes in."""

    wants = ANSWER_SIZE

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._nonce = secrets.token_bytes(NONCE_SIZE)
        self.done = False

    def hello(self) -> bytes:
        """What this end says unasked."""
        return MAGIC + self._nonce

    def feed(self, data: bytes) -> bytes:
        """The answer to ``wants`` bytes from the client. ProtocolError when it does not know the secret."""
        _check_magic(data)
        nonce, proof = data[len(MAGIC) : GREETING_SIZE], data[GREETING_SIZE:]
        if not hmac.compare_digest(proof, _proof(self._secret, b"client", self._nonce, nonce)):
            raise ProtocolError("the other end does not know the secret")
        self.done = True
        return _proof(self._secret, b"server", self._nonce, nonce)


class ClientHandshake:
    """The proxy's part: it answers the server's greeting, then checks the server's proof."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._nonce = secrets.token_bytes(NONCE_SIZE)
        self._expected = b""
        self.wants = GREETING_SIZE
        self.done = False

    def hello(self) -> bytes:
        """What this end says unasked."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """The answer to ``wants`` bytes from the server. ProtocolError when it does not know the secret."""
        if not self._expected:
            _check_magic(data)
            nonce = data[len(MAGIC) :]
            self._expected = _proof(self._secret, b"server", nonce, self._nonce)
            self.wants = PROOF_SIZE
            return MAGIC + self._nonce + _proof(self._secret, b"client", nonce, self._nonce)
        if not hmac.compare_digest(data, self._expected):
            raise ProtocolError("the other end does not know the secret")
        self.done = True
        return b""
