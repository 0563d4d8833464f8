"""A whole proxy as its actor hosts it, over TLS with client certificates: what changes while it serves, and whom that meets."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serveconf.cluster.engine import Surroundings
from serveconf.cluster.proxy import Proxy
from serveconf.cluster.settings import ClusterSettings
from serveconf.local_ray import free_port
from serveconf.plan.state import Phase
from serveconf.reconcile.ports import ProxyOrder
from serveconf.routing import Front, Generation, Middleware, ReplicaAddress, Route, encode
from serveconf.testing import MemoryStore
from serveconf.wire import WireServer

pytestmark = pytest.mark.anyio

SETTINGS = ClusterSettings(cluster_id="live", secret=b"s" * 32)
WITHIN_S = 120.0  # far more than anything takes
REQUEST = b"GET /app/ HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Signed by itself, so it is an authority, too."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return cert, key


class Client:
    """One TLS connection, kept open, that shows a certificate."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port, self._context = port, context
        self._lines: Any = None

    async def ask(self) -> dict[str, str]:
        """The header fields of the answer and its ``body``; nothing where the proxy lets nobody in."""
        try:
            async with asyncio.timeout(WITHIN_S):
                if self._lines is None:
                    self._lines = await asyncio.open_connection(
                        "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
                    )
                reader, writer = self._lines
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                first, *rows = head.decode().strip().split("\r\n")
                fields = dict(row.lower().split(": ", 1) for row in rows)
                assert first == "HTTP/1.1 200 OK"
                body = await reader.readexactly(int(fields["content-length"]))
                return {**fields, "body": body.decode()}
        except (OSError, asyncio.IncompleteReadError):  # a refused certificate is heard of at the first read
            self.close()
            return {}

    def close(self) -> None:
        if self._lines is not None:
            self._lines[1].transport.abort()
            self._lines = None


class Live:
    """A proxy that lets in clients of some authorities, before one replica."""

    def __init__(self, folder: Path) -> None:
        self.certificates = {name: make_certificate(folder, name) for name in ("server", "old", "new")}
        self.authorities = folder / "authorities.pem"
        self.trust("old")
        self._uds = str(folder / "replica")
        self._clients: list[Client] = []
        cert, key = map(str, self.certificates["server"])
        self.port = free_port()
        order = ProxyOrder(
            id="proxy", node_id="n", index=0, host="127.0.0.1", port=self.port, listener="l", ssl_certfile=cert,
            ssl_keyfile=key, ssl_ca_certs=str(self.authorities),
        )  # fmt: skip
        surroundings = Surroundings(store=MemoryStore(), node_id="n", node_ip="127.0.0.1")
        self.proxy = Proxy(order, SETTINGS, False, surroundings)

    async def start(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
            await send({"type": "http.response.body", "body": b"hello"})

        self._replica = WireServer(app, secret=SETTINGS.secret, max_ongoing=10)
        await self._replica.listen_unix(self._uds)
        await self.proxy.run()
        assert (await self.proxy.describe()).phase is Phase.READY

    def trust(self, *names: str) -> None:
        """As whoever renews certificates does it: beside, then in its place."""
        beside = self.authorities.with_suffix(".new")
        beside.write_bytes(b"".join(self.certificates[name][0].read_bytes() for name in names))
        beside.replace(self.authorities)

    def client(self, name: str) -> Client:
        context = ssl.create_default_context(cafile=str(self.certificates["server"][0]))
        context.load_cert_chain(*map(str, self.certificates[name]))
        self._clients.append(Client(self.port, context))
        return self._clients[-1]

    async def is_let_in(self, name: str) -> bool:
        """Whether a new connection is."""
        return bool(await self.client(name).ask())

    async def serve(self, number: int, front: tuple[Middleware, ...] = (), route: tuple[Middleware, ...] = ()) -> Any:
        """Stage and commit; what stood against it."""
        routes = (Route("/app", "s", "d", (ReplicaAddress(id="r", node_id="n", uds=self._uds),), middlewares=route),)
        refused = await self.proxy.stage(
            encode(Generation(number=number, front=Front(middlewares=front), routes=routes))
        )
        if refused is None:
            await self.proxy.commit(number)
        return refused

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        await self.proxy.drain(0)
        await self._replica.close()


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    monkeypatch.setattr("serveconf.cluster.proxy.node_folder", lambda _cluster: tmp_path)
    live = Live(tmp_path)
    await live.start()
    await live.serve(1)
    yield live
    await live.close()


async def until(what: Any) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await what():
            await asyncio.sleep(0.02)


def frames(value: str) -> Middleware:
    return Middleware("serveconf.middlewares:SecurityHeaders", kwargs={"frame_options": value})


async def test_renewed_authorities_count_from_the_next_connection_on_and_those_that_are_open_go_on(live: Live) -> None:
    old = live.client("old")
    assert (await old.ask())["body"] == "hello"
    assert not await live.is_let_in("new")
    live.trust("old", "new")  # a time with both, as one renews them
    await until(lambda: live.is_let_in("new"))
    assert await live.is_let_in("old")
    live.trust("new")

    async def old_is_out() -> bool:
        return not await live.is_let_in("old")

    await until(old_is_out)
    assert await live.is_let_in("new")
    assert (await old.ask())["body"] == "hello"  # the connection that was believed when it was opened


async def test_half_a_file_of_authorities_changes_nothing_until_it_is_whole(live: Live) -> None:
    whole = live.certificates["new"][0].read_bytes()
    live.authorities.write_bytes(whole[: len(whole) // 2])
    assert not live.proxy._server._tls.reload_if_changed()  # as its timer does once a second
    assert await live.is_let_in("old") and not await live.is_let_in("new")
    live.authorities.unlink()
    assert not live.proxy._server._tls.reload_if_changed()
    assert await live.is_let_in("old")
    live.trust("new")
    await until(lambda: live.is_let_in("new"))


async def test_middlewares_change_on_the_connections_that_are_open_while_authorities_are_renewed(live: Live) -> None:
    client = live.client("old")
    assert "x-frame-options" not in await client.ask()
    assert await live.serve(2, front=(frames("DENY"),)) is None
    assert (await client.ask())["x-frame-options"] == "deny"
    live.trust("new")
    await until(lambda: live.is_let_in("new"))
    assert await live.serve(3, route=(frames("SAMEORIGIN"),)) is None
    for one in (client, live.client("new")):
        assert (await one.ask())["x-frame-options"] == "sameorigin"
    assert await live.serve(4) is None
    assert "x-frame-options" not in await client.ask()


async def test_a_middleware_that_can_not_be_built_is_refused_and_what_serves_goes_on(live: Live) -> None:
    await live.serve(2, front=(frames("DENY"),))
    client = live.client("old")
    message, _, is_users = await live.serve(3, front=(Middleware("no_such_module:Guard"),))
    assert "no_such_module" in message and is_users
    assert (await client.ask())["x-frame-options"] == "deny"
    assert (await live.proxy.describe()).generation == 2
