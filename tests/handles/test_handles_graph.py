"""A graph of deployments moves as one: whatever the order in which processes hear of it, no request sees half of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from handles_harness import SECRET, Stack, in_loop, stack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serveconf.handles.directory import Directory
from serveconf.handles.handle import DeploymentHandle
from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import Generation, ReplicaAddress, Route

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Outer:
    """Calls the inner deployment twice, with something in between; says which versions have answered."""

    def __init__(self, inner: DeploymentHandle[Any], version: str) -> None:
        self.inner, self.version = inner, version

    async def __call__(self, request: Any) -> str:
        first = await self.inner.remote()
        await asyncio.sleep(0.002)
        return f"{self.version} {first} {await self.inner.remote()}"


class Inner:
    def __init__(self, version: str) -> None:
        self.version = version

    async def __call__(self) -> str:
        return self.version


class Graph:
    """A proxy, and of each version an outer replica with a directory of its own and an inner one."""

    def __init__(self, made: Stack) -> None:
        self.stack = made
        pool = ReplicaPool(node_id="n", secret=SECRET)
        self.pool = pool
        self.proxy = ProxyApp(pool=pool, backend_factory=lambda route: Backend(route, pool), import_middleware=_none)
        self.directories: dict[str, Directory] = {}
        self.replicas: dict[str, ReplicaAddress] = {}

    async def replica(self, name: str) -> ReplicaAddress:
        """``outer1``, ``inner2``: of that version."""
        if name not in self.replicas:
            version = name[-1]
            if name.startswith("outer"):
                directory = self.directories[version] = Directory(ReplicaPool(node_id="n", secret=SECRET))
                caller = type(self.stack.caller)(directory)
                args = [self.stack.handle("outer.inner", caller), version]
                self.replicas[name] = await self.stack.replica(name, Outer, directory=directory, init_args=args)
            else:
                self.replicas[name] = await self.stack.replica(name, Inner, init_args=[version])
        return self.replicas[name]

    async def generation(self, number: int, outer: str, inner: str, queue: int = 100) -> Generation:
        """The table in which these versions serve."""
        replicas = ((await self.replica(f"outer{outer}"),), (await self.replica(f"inner{inner}"),))
        front = Route(
            prefix="/",
            stack="s",
            deployment="outer",
            version=outer,
            replicas=replicas[0],
            calls=True,
            max_ongoing_requests=queue,
        )
        return Generation(
            number=number,
            routes=(
                front,
                Route(
                    prefix="",
                    stack="s",
                    deployment="outer.inner",
                    version=inner,
                    replicas=replicas[1],
                    max_ongoing_requests=queue,
                ),
            ),
        )

    async def ask(self) -> str:
        """One request through the proxy."""
        answer: list[Any] = []

        async def send(message: Any) -> None:
            answer.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/",
            "query_string": b"", "root_path": "", "headers": [(b"host", b"x")], "client": None, "server": None,
        }  # fmt: skip
        await self.proxy(scope, _nothing, send)
        assert answer[0]["status"] == 200
        return b"".join(message.get("body", b"") for message in answer[1:]).decode()

    async def close(self) -> None:
        """Every connection."""
        for directory in self.directories.values():
            await directory.close()
        await self.pool.close()


@contextlib.asynccontextmanager
async def graph() -> Any:
    async with stack() as made:
        one = Graph(made)
        try:
            yield one
        finally:
            await one.close()


async def _nothing() -> dict[str, Any]:
    await asyncio.get_running_loop().create_future()
    return {}


def _none(middleware: Any) -> Any:
    raise AssertionError("there is none")


@FEW
@given(st.permutations(["proxy", "1", "2"]), st.lists(st.integers(0, 3), min_size=4, max_size=4), st.booleans())
def test_no_request_sees_half_of_a_change_in_whichever_order_processes_commit_it(
    order: list[str], requests: list[int], waits: bool
) -> None:
    """``requests``: how many begin before each commit; ``waits``: they wait in line for a replica with room, too."""

    @in_loop
    async def play() -> None:
        async with graph() as g:
            queue = 1 if waits else 100
            first, second = await g.generation(1, "1", "1", queue), await g.generation(2, "2", "2", queue)
            for server in (g.proxy, *g.directories.values()):
                await server.stage(first)
                server.commit(1)
            under_way = [asyncio.create_task(g.ask()) for _ in range(2)]
            await asyncio.sleep(0.001)
            for server in (g.proxy, *g.directories.values()):
                await server.stage(second)
            for name, count in zip(order, requests, strict=False):
                under_way += [asyncio.create_task(g.ask()) for _ in range(count)]
                await asyncio.sleep(0)
                server = g.proxy if name == "proxy" else g.directories[name]
                server.commit(2)
                await asyncio.sleep(0.001)
            under_way += [asyncio.create_task(g.ask()) for _ in range(requests[-1])]
            answers = await asyncio.gather(*under_way)
            assert set(answers) <= {"1 1 1", "2 2 2"}
            assert await g.ask() == "2 2 2"

    play()


@in_loop
async def test_a_request_that_came_before_a_change_of_the_inner_deployment_alone_ends_with_the_old_one() -> None:
    async with graph() as g:
        first, second = await g.generation(1, "1", "1"), await g.generation(2, "1", "2")
        servers = (g.proxy, *g.directories.values())
        for generation in (first, second):
            for server in servers:
                await server.stage(generation)
            under_way = asyncio.create_task(g.ask())
            if generation is second:
                await asyncio.sleep(0.001)
            for server in servers:
                server.commit(generation.number)
        assert await under_way in ("1 1 1", "1 2 2")
        assert await g.ask() == "1 2 2"


@in_loop
async def test_the_number_of_the_table_is_not_for_the_app_and_no_client_can_say_it() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["headers"], sorted(key for key in scope if "generation" in key)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with graph() as g:
        g.replicas["outer1"] = await g.stack.replica("outer1", app, directory=g.stack.directory)
        await g.proxy.stage(await g.generation(7, "1", "1"))
        g.proxy.commit(7)
        await g.ask()
        assert seen == [([(b"host", b"x")], [])]
