"""What ``@serve.multiplexed`` promises."""

from __future__ import annotations

import asyncio
import gc
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from serveconf.runtime import context
from serveconf.runtime.multiplexed import Models, multiplexed


class Model:
    ended: list[str] = []  # noqa: RUF012 - the tests' own

    def __init__(self, model_id: str) -> None:
        self.id = model_id
        self.itself = self  # a cycle, as models have them

    def __del__(self) -> None:
        Model.ended.append(self.id)


class Host:
    def __init__(self) -> None:
        self.loaded: list[str] = []

    @multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id: str) -> Model:
        self.loaded.append(model_id)
        await asyncio.sleep(0.001)
        return Model(model_id)


def test_the_model_used_longest_ago_goes_and_its_end_runs_at_once() -> None:
    async def main() -> None:
        gc.collect()  # models of other tests, whose cycles would else end among these
        Model.ended.clear()
        host = Host()
        for model_id in ("a", "b", "a", "c"):
            assert (await host.load(model_id)).id == model_id
        assert host.loaded == ["a", "b", "c"]
        assert Model.ended == ["b"]
        await host.load("b")
        assert host.loaded == ["a", "b", "c", "b"] and Model.ended == ["b", "a"]

    asyncio.run(main())


def test_a_model_is_loaded_once_however_many_wait_for_it() -> None:
    async def main() -> None:
        host = Host()
        models = await asyncio.gather(*(host.load("a") for _ in range(5)))
        assert host.loaded == ["a"] and len({id(model) for model in models}) == 1

    asyncio.run(main())


def test_never_more_models_than_may_be_there_not_even_while_they_load() -> None:
    there: list[int] = []
    alive = 0

    class Counted:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1
            there.append(alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    @multiplexed(max_num_models_per_replica=2)
    async def load(model_id: str) -> Counted:
        made = Counted()
        for _ in range(10):  # turns, not time: the caller of the one before has let go of it by then
            await asyncio.sleep(0)
        return made

    async def use(number: int) -> None:
        await load(str(number))

    async def main() -> None:
        await asyncio.gather(*map(use, range(8)))
        assert max(there) <= 3  # one result is still in its caller's hands

    asyncio.run(main())


def test_a_loader_that_fails_leaves_nothing_behind() -> None:
    tries: list[str] = []

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> str:
        tries.append(model_id)
        if len(tries) < 3:
            raise OSError("no such file")
        return model_id

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(OSError, match="no such file"):
                await load("a")
        assert await load("a") == "a" and await load("a") == "a"
        assert tries == ["a", "a", "a"]

    asyncio.run(main())


def test_one_caller_that_leaves_does_not_take_the_model_from_the_others() -> None:
    async def main() -> None:
        host = Host()
        first, second = asyncio.create_task(host.load("a")), asyncio.create_task(host.load("a"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).id == "a" and host.loaded == ["a"]

    asyncio.run(main())


def test_instances_have_models_of_their_own() -> None:
    async def main() -> None:
        one, other = Host(), Host()
        assert await one.load("a") is not await other.load("a")

    asyncio.run(main())


class Told:
    """Hears which models a replica has."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def came(self, model_id: str) -> None:
        self.heard.append(f"+{model_id}")

    def went(self, model_id: str) -> None:
        self.heard.append(f"-{model_id}")


@pytest.fixture
def told() -> Iterator[Told]:
    """This process is a replica, and this one hears of its models."""
    told = Told()
    who = context.ReplicaContext(app_name="shop", deployment="Model", replica_tag="Model#1")
    context.enter_replica(context.Replica(context=who, max_ongoing=1, ongoing=lambda: 0, models=told))
    yield told
    context.enter_replica(None)


def test_the_replica_hears_of_a_model_when_it_begins_to_load_and_when_it_goes(told: Told) -> None:
    async def main() -> None:
        host = Host()
        first = asyncio.create_task(host.load("a"))
        await asyncio.sleep(0)
        assert told.heard == ["+a"]
        await first
        for model_id in ("b", "a", "c"):
            await host.load(model_id)
        assert told.heard == ["+a", "+b", "+c", "-b"]
        del host
        gc.collect()
        assert told.heard[4:] == ["-a", "-c"]

    asyncio.run(main())


def test_a_model_that_could_not_be_loaded_is_not_there(told: Told) -> None:
    @multiplexed
    async def load(model_id: str) -> str:
        raise OSError("no such file")

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(OSError, match="no such file"):
                await load("a")
        await asyncio.sleep(0)
        assert told.heard == ["+a", "-a", "+a", "-a"]

    asyncio.run(main())


def test_code_that_travels_by_value_takes_no_models_along() -> None:
    async def main() -> None:
        models = Models(_load, 2)
        await models.get("a")
        there = pickle.loads(pickle.dumps(models))
        assert await there.get("b") == "model b"
        assert await there.get("a") == "model a"

    asyncio.run(main())


async def _load(model_id: str) -> str:
    return f"model {model_id}"


@pytest.mark.parametrize(("header", "model_id"), [("é".encode(), "é"), ("é".encode("latin-1"), "é")])
def test_a_model_id_may_be_any_text(header: bytes, model_id: str) -> None:
    context.request.set(context.Request([(context.MODEL_ID_HEADER, header)]))
    assert context.get_multiplexed_model_id() == model_id
    context.request.set(None)


def test_the_model_id_is_the_request_s() -> None:
    context.request.set(None)
    assert context.get_multiplexed_model_id() == ""
    context.request.set(context.Request([(b"serve_multiplexed_model_id", b"small")]))
    assert context.get_multiplexed_model_id() == "small"
    context.request.set(None)


@pytest.mark.parametrize(("model_id", "error"), [("", ValueError), (3, TypeError)])
def test_what_is_no_model_id_is_refused(model_id: Any, error: type[Exception]) -> None:
    async def main() -> None:
        with pytest.raises(error):
            await Host().load(model_id)

    asyncio.run(main())


def test_wrong_uses_are_refused_when_the_module_is_imported() -> None:
    with pytest.raises(ValueError, match="positive"):
        multiplexed(max_num_models_per_replica=0)
    with pytest.raises(TypeError, match="integer"):
        multiplexed(max_num_models_per_replica=1.5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="async"):

        @multiplexed  # type: ignore[type-var]
        def load(model_id: str) -> str:
            return model_id

    with pytest.raises(TypeError, match="nothing else"):

        @multiplexed
        async def load_three(self: Any, one: str, two: str) -> str:
            return one


def test_there_is_a_replica_context_in_a_replica_alone() -> None:
    with pytest.raises(RuntimeError, match="outside of a replica"):
        context.get_replica_context()
    who = context.ReplicaContext(app_name="shop", deployment="Model", replica_tag="Model#1")
    context.enter_replica(context.Replica(context=who, max_ongoing=1, ongoing=lambda: 0))
    try:
        found = context.get_replica_context()
        assert (found.app_name, found.deployment, found.replica_id.unique_id) == ("shop", "Model", "Model#1")
    finally:
        context.enter_replica(None)
