"""The app that ``data_plane.py`` measures, and the processes that serve it: uvicorn, or a proxy and a replica.

python benchmarks/data_plane_app.py direct PORT|SOCKET | replica SOCKET SECRET | proxy PORT SOCKET SECRET
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Annotated, NoReturn

from fastapi import Depends, FastAPI, Request, Response, WebSocket
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, StreamingResponse

MIB = 1 << 20
PREFIX = "/app"
FILE = "SERVECONF_BENCHMARK_FILE"  # where the file of 100 MiB lies
WITHOUT = "SERVECONF_BENCHMARK_WITHOUT"  # parts of the data plane that are left out; data_plane_parts.py names them


class Query(BaseModel):
    """What a search is asked for."""

    text: str
    tags: list[str] = []
    limit: int = 10


class Item(BaseModel):
    """One of its results; a hundred of them are 20 KB of JSON."""

    id: int
    name: str
    price: float
    tags: list[str]
    description: str


class Found(BaseModel):
    """All of them."""

    user: str
    items: list[Item]


async def user_of(request: Request) -> str:
    """A dependency, as apps have them."""
    return request.headers.get("authorization", "").removeprefix("Bearer ")


async def settings() -> dict[str, int]:
    """Another one."""
    return {"most": 100}


def make_app() -> FastAPI:
    """The app that both legs serve."""
    app = FastAPI()
    payload = b"x" * (10 * MIB)

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"message": "hello"}

    @app.get("/download")
    async def download() -> Response:
        return Response(payload, media_type="application/octet-stream")

    @app.get("/mib")
    async def mib() -> Response:
        return Response(payload[:MIB], media_type="application/octet-stream")

    @app.get("/pieces")
    async def pieces_of(kib: int, total_kib: int) -> StreamingResponse:
        piece = payload[: kib << 10]

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(total_kib // kib):
                yield piece

        return StreamingResponse(pieces())

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(os.environ[FILE])

    @app.post("/search")
    async def search(
        query: Query, user: Annotated[str, Depends(user_of)], limits: Annotated[dict[str, int], Depends(settings)]
    ) -> Found:
        items = [
            Item(id=number, name=f"{query.text} {number}", price=number * 1.5, tags=query.tags, description="x" * 110)
            for number in range(min(query.limit, limits["most"]))
        ]
        return Found(user=user, items=items)

    @app.post("/upload")
    async def upload(request: Request) -> dict[str, int]:
        size = 0
        with contextlib.suppress(ClientDisconnect):  # wrk stops in the middle of its last request
            async for piece in request.stream():
                size += len(piece)
        return {"size": size}

    @app.get("/stream")
    async def stream(mib: int) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(mib):
                yield payload[:MIB]

        return StreamingResponse(pieces())

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return app


def direct(place: str) -> None:
    """uvicorn with the app, on a port or a socket."""
    import uvicorn

    where = {"port": int(place)} if place.isdecimal() else {"uds": place}
    uvicorn.run(make_app(), **where, log_level="warning", access_log=False)  # type: ignore[arg-type]


def replica(path: str, secret: str) -> None:
    """The app behind a WireServer."""
    import uvloop

    from serveconf.ingress.files import passes_files
    from serveconf.wire import WireServer

    async def serve() -> None:
        app = make_app()
        server = WireServer(app, secret=bytes.fromhex(secret), max_ongoing=5_000, offers_files=passes_files(app))
        await server.listen_unix(path)
        await asyncio.get_running_loop().create_future()

    uvloop.run(serve())


def proxy(port: int, path: str, secret: str) -> None:
    """A proxy as it runs in a cluster: edge, table, dispatch; one route, no middlewares."""
    import uvloop

    from serveconf.proxy.app import ProxyApp
    from serveconf.proxy.dispatch import Backend
    from serveconf.proxy.pool import ReplicaPool
    from serveconf.proxy.server import ProxyServer
    from serveconf.routing import Generation, ReplicaAddress, Route

    async def serve() -> None:
        pool = ReplicaPool(node_id="n", secret=bytes.fromhex(secret))
        replicas = (ReplicaAddress(id="r", node_id="n", uds=path),)
        route = Route(PREFIX, "s", "d", replicas, max_ongoing_requests=5_000)
        app = ProxyApp(pool=pool, backend_factory=lambda route: Backend(route, pool), import_middleware=no_middleware)
        await app.stage(Generation(number=1, routes=(route,)))
        app.commit(1)
        await ProxyServer(app, "127.0.0.1", port, edge=app.edge).start()
        await asyncio.get_running_loop().create_future()

    uvloop.run(serve())


def leave_out(part: str) -> None:
    """A part of the data plane, in this process: to see what it is worth. Nothing else is imported sooner for it."""
    match part:
        case "buffers":
            set_in("serveconf.wire.buffers", "_WORTH_KEEPING", 1 << 62)
        case "lanes":
            set_in("serveconf.wire.shared", "can_share", lambda sock, limits: False)
        case "reading past the parser":
            set_in("serveconf.proxy.long_body", "LONG_BYTES", 1 << 62)
        case "gathering":
            set_in("serveconf.wire.outflow", "GATHER_S", -1.0)
        case "strand":
            strand = importlib.import_module("serveconf.wire.strand").Strand
            strand.start = strand._become_task
        case "waiting for small bodies":
            importlib.import_module("serveconf.proxy.head").RequestHead.has_small_body = False
        case "large bodies on the fast path":
            importlib.import_module("serveconf.wire.client").WireClient.takes_whole = lambda self, size: size <= 16_384
            stream = importlib.import_module("serveconf.wire.client_stream").ClientStream
            stream.park_until_body = lambda self, parked: False
        case "batching":
            set_in("serveconf.wire.outflow", "BATCH_FRAMES", 1)
        case "polling":
            os.environ["SERVECONF_POLLING"] = "0"
        case unknown:
            raise SystemExit(f"there is no such part: {unknown}")


def set_in(module: str, name: str, value: object) -> None:
    """In this process alone."""
    setattr(importlib.import_module(module), name, value)


def no_middleware(middleware: object) -> NoReturn:
    """There are none here."""
    raise LookupError(middleware)


def main() -> None:
    """Be the process that the arguments name."""
    role, *rest = sys.argv[1:]
    for part in filter(None, os.environ.get(WITHOUT, "").split(",")):
        leave_out(part)
    match role:
        case "direct":
            direct(rest[0])
        case "replica":
            replica(*rest)
        case "proxy":
            proxy(int(rest[0]), *rest[1:])


if __name__ == "__main__":
    main()
