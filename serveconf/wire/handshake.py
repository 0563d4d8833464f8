"""The first bytes on a connection: both ends prove that they know the cluster's secret, without sending it.

::

    server -> client   magic (6), newest less oldest version (1), oldest version (1) | server nonce (32)
    client -> server   magic (6), 0 (1), the version to speak (1) | client nonce (32) | HMAC-SHA256(secret, "client" + both nonces) (32)
    server -> client   HMAC-SHA256(secret, "server" + both nonces) (32)

The server says which versions of the frames it speaks, the client takes the newest that both know: while a cluster is
upgraded, processes of two versions serve side by side.

It keeps strangers out. It does not encrypt: between nodes the network is trusted as far as Ray itself trusts it.
"""

from __future__ import annotations

import hmac
import secrets

from serveconf.wire.frames import ProtocolError

MAGIC = b"scwire"
VERSION = 5  # of the frames
OLDEST_VERSION = 3  # that this end still speaks: the one before, where there is one
TAKES_MEMORY_FROM = 5  # the version whose replicas can be offered memory, for uploads
TAKES_GENERATION_FROM = 5  # ... and take the table's number out of a request's headers
NONCE_SIZE = 32
PROOF_SIZE = 32
GREETING_SIZE = len(MAGIC) + 2 + NONCE_SIZE
ANSWER_SIZE = GREETING_SIZE + PROOF_SIZE


def _proof(secret: bytes, role: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    return hmac.digest(secret, role + server_nonce + client_nonce, "sha256")


def _version(data: bytes) -> int:
    """The newest version that both ends speak."""
    if data[: len(MAGIC)] != MAGIC:
        raise ProtocolError("the other end speaks another protocol")
    more, oldest = data[len(MAGIC) : len(MAGIC) + 2]
    version = min(VERSION, oldest + more)
    if version < max(OLDEST_VERSION, oldest):
        theirs, ours = f"{oldest} to {oldest + more}", f"{OLDEST_VERSION} to {VERSION}"
        raise ProtocolError(f"the other end speaks versions {theirs} of the protocol, this one {ours}")
    return version


class ServerHandshake:
    """The replica's part: ``hello`` goes out first, then ``feed`` takes what comes in."""

    wants = ANSWER_SIZE

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._nonce = secrets.token_bytes(NONCE_SIZE)
        self.version = 0  # of the frames, once that is settled
        self.done = False

    def hello(self) -> bytes:
        """What this end says unasked."""
        return MAGIC + bytes((VERSION - OLDEST_VERSION, OLDEST_VERSION)) + self._nonce

    def feed(self, data: bytes) -> bytes:
        """The answer to ``wants`` bytes from the client. ProtocolError when it does not know the secret."""
        self.version = _version(data)
        nonce, proof = data[len(MAGIC) + 2 : GREETING_SIZE], data[GREETING_SIZE:]
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
        self.version = 0  # of the frames, once that is settled
        self.wants = GREETING_SIZE
        self.done = False

    def hello(self) -> bytes:
        """What this end says unasked."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """The answer to ``wants`` bytes from the server. ProtocolError when it does not know the secret."""
        if not self._expected:
            self.version = _version(data)
            nonce = data[len(MAGIC) + 2 :]
            self._expected = _proof(self._secret, b"server", nonce, self._nonce)
            self.wants = PROOF_SIZE
            chosen = MAGIC + bytes((0, self.version))
            return chosen + self._nonce + _proof(self._secret, b"client", nonce, self._nonce)
        if not hmac.compare_digest(data, self._expected):
            raise ProtocolError("the other end does not know the secret")
        self.done = True
        return b""
