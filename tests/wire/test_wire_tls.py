"""Frames between nodes where Ray uses TLS: encrypted, both ends shown by certificates, and the secret proved all the same."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from wire_harness import SECRET, get, http_scope, in_loop

from serveconf.errors import OperatorError
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import ReplicaAddress
from serveconf.wire import ProtocolError, WireClient, WireServer
from serveconf.wire.node_tls import NodeTls, node_tls

WORD = b"nobody on the way reads this"


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    kind = (
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        2,
        "-subj",
        f"/CN={name}",
    )
    openssl("req", *kind, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    return folder / f"{name}.pem"


def node(folder: Path, name: str, signed_by: str, ip: str = "127.0.0.1") -> NodeTls:
    """A node's files, as Ray's documentation makes them: one certificate, in the name of the node's address."""
    ca, key, cert = folder / f"{signed_by}.pem", folder / f"{name}.key", folder / f"{name}.pem"
    names = folder / f"{name}.ext"
    names.write_text(f"subjectAltName=IP:{ip}\n")
    request = folder / f"{name}.csr"
    openssl(
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        f"/CN={name}",
        "-keyout",
        key,
        "-out",
        request,
    )
    signing = ("-CA", ca, "-CAkey", ca.with_suffix(".key"), "-CAcreateserial", "-days", 2, "-extfile", names)
    openssl("x509", "-req", "-in", request, *signing, "-out", cert)
    return NodeTls(cert=str(cert), key=str(key), authority=str(ca))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ours", "theirs"):
        authority(folder, name)
    return folder


@pytest.fixture(scope="module")
def ours(files: Path) -> NodeTls:
    return node(files, "a", "ours")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": WORD})


class Wire:
    """Passes bytes on, and keeps them."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.pipes: list[asyncio.Task[None]] = []

    async def between(self, host: str, port: int) -> tuple[asyncio.Server, int]:
        async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.pipes.append(asyncio.current_task())
            there, back = await asyncio.open_connection(host, port)

            async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                try:
                    while data := await source.read(65536):
                        self.seen += data
                        target.write(data)
                finally:
                    target.close()
                    await target.wait_closed()

            await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

        server = await asyncio.start_server(pipe, "127.0.0.1", 0)
        return server, int(server.sockets[0].getsockname()[1])


@in_loop
async def test_nothing_is_to_be_read_on_the_way(ours: NodeTls, files: Path) -> None:
    server = WireServer(echo, secret=SECRET, max_ongoing=10)
    for tls, kind, readable in ((ours, "tls", False), (None, "tcp", True)):
        wire = Wire()
        host, port = await server.listen_tcp("127.0.0.1", tls=tls)
        between, way = await wire.between(host, port)
        client = await WireClient.connect(f"{kind}:127.0.0.1:{way}", secret=SECRET, tls=tls)
        visitor = get()
        assert await client(http_scope(), visitor.receive, visitor.send) == 200
        assert (WORD in wire.seen) is readable
        assert wire.seen
        client.close()
        await asyncio.gather(*wire.pipes)
        between.close()
    await server.close()


@in_loop
async def test_both_ends_show_what_the_authority_has_signed_and_prove_the_secret(ours: NodeTls, files: Path) -> None:
    server = WireServer(echo, secret=SECRET, max_ongoing=10)
    _, port = await server.listen_tcp("127.0.0.1", tls=ours)
    strange, elsewhere = node(files, "b", "theirs"), node(files, "c", "ours", ip="127.0.0.2")
    half = NodeTls(cert=strange.cert, key=strange.key, authority=ours.authority)  # it believes us, we do not believe it

    async def connect(tls: NodeTls | None, kind: str = "tls", secret: bytes = SECRET) -> WireClient:
        return await WireClient.connect(f"{kind}:127.0.0.1:{port}", secret=secret, tls=tls, timeout_s=3)

    with pytest.raises(ssl.SSLError):
        await connect(strange)
    with pytest.raises((OSError, ProtocolError)):
        await connect(half)
    with pytest.raises((OSError, ProtocolError)):  # in the clear
        await connect(None, "tcp")
    with pytest.raises(ConnectionRefusedError, match="RAY_USE_TLS is not set here"):
        await connect(None)
    with pytest.raises((OSError, ProtocolError)):
        await connect(ours, secret=b"x" * 32)
    (await connect(elsewhere)).close()  # its own name is no matter to who is called, as with Ray
    _, other = await server.listen_tcp("127.0.0.1", tls=elsewhere)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"127\.0\.0\.1"):
        await WireClient.connect(f"tls:127.0.0.1:{other}", secret=SECRET, tls=ours)
    await server.close()


@in_loop
async def test_renewed_files_count_from_the_next_connection_on(files: Path, tmp_path: Path) -> None:
    authority(tmp_path, "old")
    tls = node(tmp_path, "n", "old")
    server = WireServer(echo, secret=SECRET, max_ongoing=10)
    _, port = await server.listen_tcp("127.0.0.1", tls=tls)
    first = await WireClient.connect(f"tls:127.0.0.1:{port}", secret=SECRET, tls=tls)
    authority(tmp_path, "old")
    renewed = node(tmp_path, "n", "old")
    for path in (renewed.cert, renewed.key, renewed.authority):
        os.utime(path, (1, 1))
    second = await WireClient.connect(f"tls:127.0.0.1:{port}", secret=SECRET, tls=renewed)
    for client in (first, second):
        visitor = get()
        assert await client(http_scope(), visitor.receive, visitor.send) == 200
        client.close()
    await server.close()


def test_rays_own_variables_say_it(ours: NodeTls) -> None:
    said = {"RAY_TLS_SERVER_CERT": ours.cert, "RAY_TLS_SERVER_KEY": ours.key, "RAY_TLS_CA_CERT": ours.authority}
    assert node_tls(said) is None
    assert node_tls({**said, "RAY_USE_TLS": "0"}) is None
    assert node_tls({**said, "RAY_USE_TLS": "1"}) == ours
    with pytest.raises(OperatorError, match="RAY_TLS_CA_CERT is not") as refused:
        node_tls({**said, "RAY_USE_TLS": "true", "RAY_TLS_CA_CERT": ""})
    assert refused.value.code == "tls"
    with pytest.raises(OperatorError, match="can't be used"):
        NodeTls(cert=ours.cert, key="/none", authority=ours.authority).server()


@in_loop
async def test_a_replica_that_wants_it_is_reached_so_and_one_of_this_node_by_its_socket(ours: NodeTls) -> None:
    pool = ReplicaPool(node_id="here", secret=SECRET, tls=ours)
    one = ReplicaAddress(id="r", node_id="there", uds="/run/r", tcp="tls:10.0.0.1:5")
    assert pool.where(one) == "tls:10.0.0.1:5"
    assert pool.where(ReplicaAddress(id="r", node_id="there", uds="/run/r", tcp="10.0.0.1:5")) == "tcp:10.0.0.1:5"
    assert pool.where(ReplicaAddress(id="r", node_id="here", uds="/run/r", tcp="tls:10.0.0.1:5")) == "unix:/run/r"
