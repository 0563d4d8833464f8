"""Calls over real sockets and frames: what the local mode promises, and what only the wire can break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from handles_harness import SECRET, generation, in_loop, stack

from serveconf.errors import AuthorError
from serveconf.handles.calling import WireCaller
from serveconf.handles.calls import Target
from serveconf.handles.directory import Directory
from serveconf.handles.errors import (
    BackPressureError,
    CallFailed,
    DeploymentUnavailableError,
    RemoteTraceback,
    ReplicaLost,
    RequestCancelledError,
)
from serveconf.handles.handle import DeploymentHandle
from serveconf.ingress.class_routes import ingress
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import SessionAffinity, encode_routes
from serveconf.runtime.context import get_multiplexed_model_id


class Model:
    def __init__(self) -> None:
        self.running = 0
        self.ended: list[str] = []
        self.go = asyncio.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    async def double(self, array: Any) -> Any:
        assert array.flags.writeable
        array *= 2
        return array

    async def wait(self) -> str:
        self.running += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        finally:
            self.running -= 1
        return "done"

    def count(self, limit: int, size: int = 0) -> Iterator[Any]:
        for number in range(limit):
            yield bytes(size) if size else number

    async def count_and_fail(self, limit: int) -> AsyncIterator[int]:
        for number in range(limit):
            yield number
        raise LookupError("at the end")

    async def fail(self) -> None:
        raise ValueError("wrong", 7)

    def fail_oddly(self) -> None:
        class Odd(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__(f"{one}-{two}")

        raise Odd(1, 2)

    def exit(self) -> None:
        raise SystemExit(3)

    def lambda_(self) -> Any:
        return lambda x: x + 1

    def socket(self) -> Any:
        import threading

        return threading.Lock()

    async def model(self) -> str:
        return get_multiplexed_model_id()


@in_loop
async def test_arguments_and_results_of_any_kind_and_size_come_over_whole() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Model)]}))
        handle = s.handle("m")
        assert await handle.remote(1, "two", three=[3.0, None]) == ((1, "two"), {"three": [3.0, None]})
        for size in (0, 1, 20_000, 40_000, 1_000_000, 5_000_000):
            text = bytes(range(256)) * (size // 256)
            (back,), _ = await handle.remote(text)
            assert back == text
            array = np.arange(size, dtype=np.uint8)
            doubled = await handle.double.remote(array)
            assert np.array_equal(doubled, np.arange(size, dtype=np.uint8) * 2) and doubled.flags.writeable
            assert np.array_equal(array, np.arange(size, dtype=np.uint8))
        (many,), _ = await handle.remote([np.full(50_000, n) for n in range(5)])
        assert [int(array.sum()) for array in many] == [0, 50_000, 100_000, 150_000, 200_000]
        assert (await handle.lambda_.remote())(1) == 2


@in_loop
async def test_exceptions_come_with_their_type_and_the_other_process_s_traceback() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Model)]}))
        handle = s.handle("m")
        with pytest.raises(ValueError, match="wrong") as caught:
            await handle.fail.remote()
        assert caught.value.args == ("wrong", 7)
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert 'raise ValueError("wrong", 7)' in str(caught.value.__cause__)
        with pytest.raises(CallFailed, match="Odd: 1-2"):
            await handle.fail_oddly.remote()
        with pytest.raises(CallFailed, match="SystemExit: 3"):
            await handle.exit.remote()
        with pytest.raises(CallFailed, match="cannot be sent"):
            await handle.socket.remote()
        with pytest.raises(AuthorError, match="Model has no method nothing"):
            await handle.nothing.remote()
        with pytest.raises(AuthorError, match="no method __class__"):
            await handle.options(method_name="__class__").remote()
        with pytest.raises(CallFailed, match="cannot be sent"):
            await handle.remote(asyncio.get_running_loop())


@in_loop
async def test_a_stream_comes_in_order_and_is_held_up_by_who_does_not_read_it() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Model)]}))
        handle = s.handle("m").options(stream=True)
        assert [item async for item in handle.count.remote(500)] == list(range(500))
        sizes = [len(item) async for item in handle.count.remote(20, 300_000)]
        assert sizes == [300_000] * 20
        failing = handle.count_and_fail.remote(3)
        assert [await anext(failing) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(LookupError, match="at the end"):
            await anext(failing)
        with pytest.raises(TypeError, match="no generator"):
            await anext(handle.remote(1))
        with pytest.raises(TypeError, match="stream=True"):
            await handle.options(stream=False).count.remote(1)


@in_loop
async def test_a_stream_that_is_let_go_of_ends_at_the_other_end() -> None:
    ended = asyncio.Event()

    class Source:
        async def __call__(self) -> AsyncIterator[int]:
            try:
                number = 0
                while True:
                    yield (number := number + 1)
                    await asyncio.sleep(0)
            finally:
                ended.set()

    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Source)]}))
        async for item in s.handle("m").options(stream=True).remote():
            if item == 5:
                break
        await ended.wait()


@in_loop
async def test_a_cancelled_call_ends_at_the_other_end() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Model)]}))
        model: Any = s.served["a"].servable
        response = s.handle("m").wait.remote()
        while not model.running:
            await asyncio.sleep(0)
        response.cancel()
        with pytest.raises(RequestCancelledError):
            await response
        waiting = asyncio.create_task(wait_for(s.handle("m").wait.remote()))
        while len(model.ended) + model.running < 2:
            await asyncio.sleep(0)
        waiting.cancel()
        while len(model.ended) < 2:
            await asyncio.sleep(0)
        assert s.servers["a"].ongoing == model.running == 0


async def wait_for(response: Any) -> Any:
    return await response


@in_loop
async def test_none_of_many_cancelled_calls_runs_on() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Model, max_ongoing=10_000)]}))
        model: Any = s.served["a"].servable
        handle = s.handle("m").wait
        for round_ in range(5):
            responses = [handle.remote() for _ in range(200)]
            for _ in range(round_):
                await asyncio.sleep(0)
            for response in responses:
                response.cancel()
        assert await s.handle("m").remote() == ((), {})  # everything before it has been dealt with
        while s.servers["a"].ongoing:
            await asyncio.sleep(0)
        assert model.running == 0


@in_loop
async def test_a_replica_s_limit_is_held_and_the_others_wait_in_line() -> None:
    async with stack() as s:
        replica = await s.replica("a", Model, max_ongoing=2)
        await s.directory.take(generation(1, {"m": [replica]}, max_ongoing_requests=2, max_queued_requests=3))
        model: Any = s.served["a"].servable
        await s.handle("m").remote()
        responses = [s.handle("m").wait.remote() for _ in range(5)]
        while model.running < 2:
            await asyncio.sleep(0)
        with pytest.raises(BackPressureError):
            await s.handle("m").wait.remote()
        assert model.running == 2
        model.go.set()
        assert [await response for response in responses] == ["done"] * 5


@in_loop
async def test_calls_go_to_the_replica_that_has_least_to_do() -> None:
    async with stack() as s:
        replicas = [await s.replica(name, Model) for name in ("a", "b")]
        await s.directory.take(generation(1, {"m": replicas}))
        responses = [s.handle("m").wait.remote() for _ in range(20)]
        a, b = (s.served[name].servable for name in ("a", "b"))
        while a.running + b.running < 20:  # type: ignore[union-attr]
            await asyncio.sleep(0)
        assert (a.running, b.running) == (10, 10)  # type: ignore[union-attr]
        a.go.set(), b.go.set()  # type: ignore[union-attr]
        assert {await response for response in responses} == {"done"}


@in_loop
async def test_a_call_that_a_replica_took_is_never_repeated_and_one_that_none_took_is() -> None:
    async with stack() as s:
        a = await s.replica("a", Model, max_ongoing=1)
        await s.directory.take(generation(1, {"m": [a]}, max_ongoing_requests=1))
        taken, waiting = s.handle("m").wait.remote(), s.handle("m").wait.remote()
        model: Any = s.served["a"].servable
        while not model.running:
            await asyncio.sleep(0)
        await s.directory.take(generation(2, {"m": [await s.replica("b", Model)]}))
        for connection in list(s.servers["a"]._connections):
            connection.abort()
        with pytest.raises(ReplicaLost, match="died before it answered"):
            await taken
        s.served["b"].servable.go.set()  # type: ignore[union-attr]
        assert await waiting == "done"


@in_loop
async def test_responses_are_arguments_and_their_errors_are_the_call_s() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Model)]}))
        handle = s.handle("m")
        assert await handle.remote(handle.remote(1), key=handle.remote(2)) == (
            (((1,), {}),),
            {"key": ((2,), {})},
        )
        with pytest.raises(ValueError, match="wrong"):
            await handle.remote(handle.fail.remote())


@in_loop
async def test_a_deployment_that_is_not_there_is_an_error_in_time() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": []}, request_timeout_s=0.05))
        with pytest.raises(DeploymentUnavailableError, match="no deployment 'other' in stack 's'"):
            await s.handle("other").remote()
        with pytest.raises(TimeoutError):
            await s.handle("m").remote()


@in_loop
async def test_a_deadline_ends_the_call_at_both_ends() -> None:
    async with stack() as s:
        replica = await s.replica("a", Model)
        await s.directory.take(generation(1, {"m": [replica]}, request_timeout_s=1.0))
        with pytest.raises(TimeoutError, match="request_timeout_s"):
            await s.handle("m").wait.remote()
        model: Any = s.served["a"].servable
        while model.running:
            await asyncio.sleep(0)
        assert model.ended == ["cancelled"]


@in_loop
async def test_the_model_that_a_handle_names_is_the_request_s() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Model)]}))
        assert await s.handle("m").options(multiplexed_model_id="small").model.remote() == "small"
        assert await s.handle("m").model.remote() == ""


@in_loop
async def test_calls_for_a_model_go_where_it_is_and_spread_over_the_replicas_before() -> None:
    async with stack() as s:
        replicas = [await s.replica(name, Multiplexed, init_args=(name,)) for name in ("a", "b", "c")]
        for name in ("a", "b", "c"):
            s.served[name].servable.tell(s.servers[name].models)
        await s.directory.take(generation(1, {"m": replicas}))
        ids = [f"model {number}" for number in range(60)]
        asked = [s.handle("m").options(multiplexed_model_id=one).remote() for one in ids for _ in range(3)]
        where = dict(zip(ids, [await one for one in asked][::3], strict=True))
        assert {*where.values()} == {"a", "b", "c"}
        loaded = [one for name in "abc" for one in s.served[name].servable.loaded]
        assert sorted(loaded) == sorted(ids)  # each of them once

        other = {"a": "b", "b": "c", "c": "a"}[where["model 7"]]
        s.served[other].servable.keep("model 7")  # whatever the hash says
        del s.served[where["model 7"]].servable.models["model 7"]
        s.servers[where["model 7"]].models.went("model 7")
        clients = {replica.id: s.pool.link(replica).client for replica in replicas}
        former, chosen = clients[where["model 7"]], clients[other]
        while b"model 7" in former.models or b"model 7" not in chosen.models:
            await asyncio.sleep(0.001)
        assert await s.handle("m").options(multiplexed_model_id="model 7").remote() == other


@in_loop
async def test_the_calls_of_a_session_go_to_one_replica() -> None:
    async with stack() as s:
        replicas = [await s.replica(name, Named, init_args=(name,)) for name in ("a", "b", "c")]
        said = SessionAffinity(cookie="replica")  # for requests from outside: what calls say is enough
        await s.directory.take(generation(1, {"m": replicas}, session_affinity=said))
        seen = set()
        for number in range(20):
            handle = s.handle("m").options(session_id=f"session {number}")
            (where,) = {await handle.remote() for _ in range(4)}
            seen.add(where)
        assert seen == {"a", "b", "c"}
        seen = set()
        while len(seen) < 3:
            seen.add(await s.handle("m").remote())


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self) -> str:
        return self.name


class Multiplexed:
    """Keeps every model, and tells of it as ``@serve.multiplexed`` does: there is but one replica in a process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.models: dict[str, str] = {}
        self.loaded: list[str] = []

    def tell(self, held: Any) -> None:
        self.held = held

    def keep(self, model_id: str) -> None:
        self.models[model_id] = model_id
        self.held.came(model_id)

    async def __call__(self) -> str:
        model_id = get_multiplexed_model_id()
        if model_id not in self.models:
            self.keep(model_id)
            await asyncio.sleep(0.001)
            self.loaded.append(model_id)
        return self.name


@in_loop
async def test_functions_and_methods_of_fastapi_classes_are_called_too() -> None:
    from fastapi import FastAPI

    app = FastAPI()

    @ingress(app)
    class Site:
        @app.get("/")
        def home(self) -> str:
            return "home"

    def add(one: int, two: int) -> int:
        return one + two

    async with stack() as s:
        replicas = {"f": [await s.replica("f", lambda request=None: add)], "s": [await s.replica("s", Site)]}
        await s.directory.take(generation(1, replicas))
        assert await s.handle("s").home.remote() == "home"
        assert (await s.handle("f").remote())(1, 2) == 3


@in_loop
async def test_a_request_ends_with_the_graph_that_it_began_with() -> None:
    """The outer deployment stays, the inner one is replaced while a request of the outer one is under way."""

    class Outer:
        def __init__(self, inner: DeploymentHandle[Any]) -> None:
            self.inner = inner
            self.between = asyncio.Event()
            self.begun = asyncio.Event()

        async def __call__(self) -> list[str]:
            first = await self.inner.remote()
            self.begun.set()
            await self.between.wait()
            return [first, await self.inner.remote()]

    class Inner:
        def __init__(self, version: str) -> None:
            self.version = version

        async def __call__(self) -> str:
            return self.version

    async with stack() as s, stack() as t:
        # ``t`` is the outer replica's own directory; ``s`` is the caller's
        old = [await s.replica("old", Inner, init_args=["old"])]
        outer = [await s.replica("outer", Outer, directory=t.directory, init_args=[t.handle("inner")])]
        for directory in (s.directory, t.directory):
            await directory.take(generation(1, {"inner": old, "outer": outer}))
        under_way = asyncio.create_task(with_generation(s, "outer", 1))
        instance: Any = s.served["outer"].servable
        await instance.begun.wait()
        new = [await s.replica("new", Inner, init_args=["new"])]
        following = generation(2, {"inner": new, "outer": outer})
        await t.directory.stage(following)
        t.directory.commit(2)
        await s.directory.take(following)
        instance.between.set()
        assert await under_way == ["old", "old"]
        assert await with_generation(s, "outer", 2) == ["new", "new"]
        assert await s.servers["old"].drain(30)  # its last connection went with the last request of its generation


@in_loop
async def test_a_former_name_leads_to_the_deployment_and_who_waits_under_it_is_served() -> None:
    async with stack() as s:
        a = await s.replica("a", Model, max_ongoing=1)
        await s.directory.take(generation(1, {"m": [a]}, max_ongoing_requests=1))
        model: Any = s.served["a"].servable
        by_old_name = s.handle("m")
        responses = [by_old_name.wait.remote() for _ in range(3)]
        while not model.running:
            await asyncio.sleep(0)
        await s.directory.take(generation(2, {"new": [a]}, max_ongoing_requests=1, formerly=("m",)))
        responses += [by_old_name.wait.remote(), s.handle("new").wait.remote()]
        model.go.set()
        assert [await response for response in responses] == ["done"] * 5
        assert await DeploymentHandle(Target(stack="m", deployment=""), caller=s.caller).remote() == ((), {})


@in_loop
async def test_what_a_renamed_application_was_given_to_call_leads_there_also_when_nobody_knows_the_old_name() -> None:
    async with stack() as s:
        a = await s.replica("a", Model)
        await s.directory.take(generation(1, {"shop": [a], "shop.Model": [a]}))
        bound = s.handle("shop.Model")
        s.directory.rename_application("s", "shop", "store")
        assert await bound.remote() == ((), {})
        await s.directory.take(generation(2, {"store": [a], "store.Model": [a]}))
        assert await bound.remote() == ((), {})
        s.directory.rename_application("s", "store", "shop")
        await s.directory.take(generation(3, {"shop": [a], "shop.Model": [a]}))
        assert await bound.remote() == ((), {})
        assert await s.handle("store.Model").remote() == ((), {})


async def with_generation(s: Any, deployment: str, number: int) -> Any:
    from serveconf.runtime import context

    context.request.set(context.Request([], number))
    return await s.handle(deployment).remote()


@in_loop
async def test_a_table_that_is_staged_and_taken_back_leaves_nothing() -> None:
    async with stack() as s:
        await s.directory.take(generation(1, {"m": [await s.replica("a", Model)]}))
        await s.handle("m").remote()
        await s.directory.stage(generation(2, {"m": [await s.replica("b", Model)]}))
        assert s.servers["b"]._connections
        s.directory.abort(2)
        while s.servers["b"]._connections:
            await asyncio.sleep(0)
        assert await s.handle("m").remote(1) == ((1,), {})


@in_loop
async def test_calls_from_threads_do_not_block_the_loop() -> None:
    class Sync:
        def __init__(self, inner: DeploymentHandle[Any]) -> None:
            self.inner = inner

        def __call__(self, number: int) -> Any:
            return self.inner.remote(number).result(timeout_s=30)

        def stream(self) -> list[int]:
            return list(self.inner.options(stream=True).count.remote(3))

    async with stack() as s:
        replicas = {"m": [await s.replica("a", Model)], "sync": [await s.replica("b", Sync, init_args=[s.handle("m")])]}
        await s.directory.take(generation(1, replicas))
        results = await asyncio.gather(*(wait_for(s.handle("sync").remote(n)) for n in range(30)))
        assert results == [((n,), {}) for n in range(30)]
        assert await s.handle("sync").stream.remote() == [0, 1, 2]


@in_loop
async def test_calls_are_timed_by_whom_they_call_also_those_that_fail() -> None:
    async with stack() as made:
        address = await made.replica("work", Model)
        await made.directory.take(generation(1, {"work": [address]}))
        handle = made.handle("work")
        await handle.remote(1)
        async for _ in handle.options(stream=True).count.remote(3):
            pass
        with pytest.raises(Exception, match="at the end"):
            async for _ in handle.options(stream=True).count_and_fail.remote(1):
                pass
        counted = made.caller.durations["s/work"]
        assert counted.count == 3
        assert counted.sum > 0


@in_loop
async def test_what_begins_to_be_served_is_found_by_who_starts_beside_it_and_by_nobody_else() -> None:
    async with stack() as s:
        begun: dict[str, bytes] = {}
        asked: list[str] = []

        async def read(name: str) -> bytes | None:
            await asyncio.sleep(0)
            asked.append(name)
            return begun.get(name)

        directory = Directory(ReplicaPool(node_id="n", secret=SECRET), read)
        handle = s.handle("m", WireCaller(directory))
        old = await s.replica("old", lambda request=None: "old")
        await directory.take(generation(1, {"m": [old]}))
        begun["s"] = encode_routes(generation(0, {"m": []}).routes)
        with directory.starting():
            response = asyncio.create_task(wait_for(handle.remote()))
            while directory.waits_for != "m":
                await asyncio.sleep(0)
            new = await s.replica("new", lambda request=None: "new")
            begun["s"] = encode_routes(generation(0, {"m": [new]}).routes)
            assert await response == "new"
            assert directory.waits_for == ""
            del begun["s"]
            assert await handle.remote() == "old"  # the apply has come to nothing
        asked.clear()
        assert (await handle.remote(), asked) == ("old", [])
        await directory.close()
        assert await s.servers["new"].drain(5)
