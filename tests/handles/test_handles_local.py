"""Applications in one process: the graph, handles, responses. What holds here holds over the wire (test_handles_wire)."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from serveconf.errors import AuthorError
from serveconf.handles.calls import Target
from serveconf.handles.errors import RequestCancelledError
from serveconf.handles.handle import DeploymentHandle
from serveconf.handles.local import run_locally
from serveconf.ingress.class_routes import ingress
from serveconf.ingress.deployment import deployment
from serveconf.ingress.graph import node_of, nodes_of
from serveconf.runtime.context import get_multiplexed_model_id


@deployment
class Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, number: int) -> int:
        return number + self.amount

    async def by(self, number: int, *, times: int = 1) -> int:
        return number + self.amount * times

    def count(self, limit: int) -> Iterator[int]:
        yield from range(limit)

    async def count_async(self, limit: int) -> AsyncIterator[int]:
        for number in range(limit):
            yield number

    def fail(self) -> None:
        raise KeyError("no such thing")

    def reconfigure(self, config: dict[str, int]) -> None:
        self.amount = config["amount"]

    async def model(self) -> str:
        return get_multiplexed_model_id()


@deployment
class Front:
    def __init__(self, adder: DeploymentHandle[Any], others: dict[str, list[DeploymentHandle[Any]]]) -> None:
        self.adder = adder
        self.others = others["all"]

    async def __call__(self, number: int) -> int:
        result: int = await self.adder.remote(number)
        for other in self.others:
            result = await other.by.remote(result, times=2)
        return result

    def in_thread(self, number: int) -> int:
        result: int = self.adder.remote(number).result(timeout_s=20)
        return result

    async def chained(self, number: int) -> int:
        result: int = await self.adder.remote(self.adder.remote(number))
        return result

    async def streamed(self, limit: int) -> list[int]:
        return [item async for item in self.adder.options(stream=True).count.remote(limit)]


def front(*amounts: int) -> DeploymentHandle[Any]:
    bound = [Adder.bind(amount) for amount in amounts]
    return run_locally(Front.bind(bound[0], {"all": bound[1:]}), "app")


def test_a_graph_s_deployments_have_names_of_their_own_and_the_ingress_is_last() -> None:
    shared = Adder.bind(1)
    app = Front.bind(shared, {"all": [shared, Adder.bind(2), Adder.options(name="Other").bind(3)]})
    nodes = nodes_of(app)
    assert [node.name for node in nodes] == ["Adder", "Adder_1", "Other", "Front"]
    assert nodes[-1].calls == ("Adder", "Adder_1", "Other") and nodes[0].calls == ()
    args, kwargs = node_of(app, "").arguments(str.lower)
    assert (args, kwargs) == (("adder", {"all": ["adder", "adder_1", "other"]}), {})
    assert node_of(app, "Adder_1").args == (2,)
    with pytest.raises(AuthorError, match="no deployment 'Nobody'"):
        node_of(app, "Nobody")


def test_applications_inside_of_dataclasses_and_tuples_are_found_and_nothing_else_is_touched() -> None:
    @dataclasses.dataclass
    class Config:
        name: str
        model: Any

    kept = object()
    app = Front.bind((1, Adder.bind(1)), {"config": Config("a", Adder.bind(2)), "kept": kept})
    (pair, mapping), _ = node_of(app, "").arguments(lambda name: f"<{name}>")
    assert pair == (1, "<Adder>")
    assert mapping["config"] == Config("a", "<Adder_1>") and mapping["kept"] is kept


def test_a_deployment_that_is_not_bound_is_no_argument() -> None:
    with pytest.raises(AuthorError, match="is not bound"):
        nodes_of(Front.bind(Adder, {}))


def test_a_result_is_asked_for_in_sync_code_and_awaited_in_async_code() -> None:
    handle = front(1, 10, 100)
    assert handle.remote(5).result() == 226
    assert handle.in_thread.remote(5).result() == 6

    async def main() -> int:
        response = handle.remote(5)
        assert await response == await response
        result: int = await handle.chained.remote(1)
        return result

    assert asyncio.run(main()) == 3


def test_an_exception_comes_back_as_it_was_raised() -> None:
    handle = run_locally(Adder.bind(1), "app")
    with pytest.raises(KeyError, match="no such thing"):
        handle.fail.remote().result()
    with pytest.raises(AuthorError, match="Adder has no method nothing"):
        handle.nothing.remote().result()


def test_results_are_streamed_both_ways() -> None:
    handle = front(1)
    assert handle.streamed.remote(3).result() == [0, 1, 2]
    adder = run_locally(Adder.bind(1), "app").options(stream=True)
    assert list(adder.count.remote(3)) == list(adder.count_async.remote(3)) == [0, 1, 2]

    async def main() -> list[int]:
        return [item async for item in adder.count.remote(4)]

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_a_generator_needs_a_stream_and_a_stream_a_generator() -> None:
    handle = run_locally(Adder.bind(1), "app")
    with pytest.raises(TypeError, match="stream=True"):
        handle.count.remote(3).result()
    with pytest.raises(TypeError, match="no generator"):
        list(handle.options(stream=True).remote(3))
    with pytest.raises(TypeError, match="iterate"):
        handle.options(stream=True).count.remote(3).result()
    with pytest.raises(RuntimeError, match="cannot be passed"):
        handle.remote(handle.options(stream=True).count.remote(3))


def test_a_result_cannot_be_asked_for_where_it_would_block_the_loop() -> None:
    handle = run_locally(Adder.bind(1), "app")

    async def main() -> None:
        response = handle.remote(1)
        with pytest.raises(RuntimeError, match="await"):
            response.result()
        assert await response == 2

    asyncio.run(main())


def test_a_call_that_takes_too_long_is_no_longer_waited_for_and_goes_on() -> None:
    go, ended = threading.Event(), threading.Event()

    @deployment
    def slow() -> str:
        go.wait(120)
        ended.set()
        return "done"

    response = run_locally(slow.bind(), "app").remote()
    with pytest.raises(TimeoutError, match="no result within"):
        response.result(timeout_s=0.01)
    go.set()
    assert response.result(timeout_s=20) == "done" and ended.is_set()


def test_a_cancelled_call_ends_at_the_other_end_and_so_does_what_it_has_called() -> None:
    begun, ended = threading.Event(), []

    @deployment
    class Inner:
        async def __call__(self) -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("inner")
                raise

    @deployment
    class Outer:
        def __init__(self, inner: DeploymentHandle[Any]) -> None:
            self.inner = inner

        async def __call__(self) -> None:
            try:
                await self.inner.remote()
            except asyncio.CancelledError:
                ended.append("outer")
                raise

    response = run_locally(Outer.bind(Inner.bind()), "app").remote()
    assert begun.wait(120)
    response.cancel()
    with pytest.raises(RequestCancelledError):
        response.result(timeout_s=20)
    assert run_locally(Adder.bind(1), "other").remote(1).result() == 2  # the loop has come round
    assert sorted(ended) == ["inner", "outer"]

    async def main() -> None:
        begun.clear()
        response = run_locally(Outer.bind(Inner.bind()), "app").remote()
        response.cancel()
        with pytest.raises(RequestCancelledError):
            await response

    asyncio.run(main())


def test_options_say_for_which_model_it_is_and_leave_the_handle_as_it_was() -> None:
    handle = run_locally(Adder.bind(1), "app")
    model = handle.options(multiplexed_model_id="small", method_name="model")
    assert model.remote().result() == "small"
    assert handle.model.remote().result() == ""
    with pytest.raises(TypeError):
        handle.options(multiplexed=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="multiplexed_model_id must be a str"):
        handle.options(multiplexed_model_id=3)  # type: ignore[arg-type]


def test_a_class_of_methods_is_called() -> None:
    @deployment
    class Methods:
        def double(self, number: int) -> int:
            return number * 2

    assert run_locally(Methods.bind(), "app").double.remote(4).result(timeout_s=20) == 8


def test_a_user_config_reaches_the_object() -> None:
    assert run_locally(Adder.options(user_config={"amount": 7}).bind(1), "app").remote(1).result() == 8


def test_methods_of_a_fastapi_class_can_be_called() -> None:
    app = FastAPI()

    @deployment
    @ingress(app)
    class Site:
        @app.get("/hello")
        def hello(self, name: str) -> str:
            return f"hello {name}"

    assert run_locally(Site.bind(), "app").hello.remote("you").result() == "hello you"


def test_a_handle_can_be_pickled_and_a_response_cannot() -> None:
    handle = DeploymentHandle(Target(stack="s", deployment="app.Model"), deployment_name="Model", app_name="app")
    again = pickle.loads(pickle.dumps(handle.options(method_name="go")))
    assert repr(again) == "DeploymentHandle(deployment='Model', app='app')"
    assert again._options.method_name == "go"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(run_locally(Adder.bind(1), "app").remote(1))
